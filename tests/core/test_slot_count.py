"""Slots: how many requests an instance gets at a time."""

from collections.abc import Mapping

import pytest

from ollama_proxy.core.slot_count import PARALLEL, environment_of_instances, slots_of


@pytest.mark.parametrize(
    ("stated", "offers", "most", "environment", "slots"),
    [
        (None, 1, 1, {}, None),
        (None, 1, 1, None, None),
        (None, 1, 1, {PARALLEL: "2"}, None),
        (3, 1, 1, {}, 3),
        (None, 1, 2, {PARALLEL: "4"}, 4),
        (None, 2, 1, {}, 1),
        (None, 2, 1, None, 1),
        (2, 2, 3, None, 2),
        (None, 2, 1, {PARALLEL: "auto"}, 1),
        (None, 2, 1, {PARALLEL: "0"}, 1),
    ],
)
def test_slots_are_what_is_said_else_what_the_machine_was_told(
    stated: int | None,
    offers: int,
    most: int,
    environment: Mapping[str, str] | None,
    slots: int | None,
) -> None:
    found = slots_of(stated, offers=offers, max_instances=most, environment=environment)

    assert found == slots


@pytest.mark.parametrize(
    ("given", "inherited", "slots", "most", "parallel"),
    [
        ({}, {}, None, 1, None),
        ({}, {}, None, 2, "4"),
        ({}, {}, 2, 1, "2"),
        ({PARALLEL: "8"}, {}, 2, 3, "8"),
        ({}, {PARALLEL: "8"}, None, 3, None),
    ],
)
def test_a_machine_is_told_its_slots_where_others_share_its_load(
    given: dict[str, str],
    inherited: dict[str, str],
    slots: int | None,
    most: int,
    parallel: str | None,
) -> None:
    environment = environment_of_instances(
        given | {"OLLAMA_DEBUG": "1"},
        slots=slots,
        max_instances=most,
        inherited=inherited,
    )

    assert environment.get(PARALLEL) == parallel
    assert environment["OLLAMA_DEBUG"] == "1"
