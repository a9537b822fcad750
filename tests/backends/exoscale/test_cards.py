"""What GPUs a type has, as its name tells."""

import pytest

from ollama_proxy.backends.exoscale.cards import gpus_of, least_gpus


@pytest.mark.parametrize(
    ("name", "gpus"),
    [
        ("a5000.small", (1, 24)),
        ("gpua5000.small", (1, 24)),
        (" GPUA5000.Large ", (4, 96)),
        ("gpu3.huge", (8, 384)),
        ("gpu2.huge", (4, 64)),
        ("3080ti.medium", (2, 24)),
        ("standard.small", (0, 0)),
        ("small", (0, 0)),
        ("cpu.titan", (0, 0)),
        ("gpub300.huge", None),
        ("gpua5000.colossal", None),
        ("b6cd1ff5-3a2f-4e9d-a4d1-8988c1191fe8", None),
    ],
)
def test_a_name_tells_cards_and_memory(name: str, gpus: tuple[int, int] | None) -> None:
    assert gpus_of(name) == gpus


def test_the_least_of_several_types_counts() -> None:
    assert least_gpus(["gpu3.small", "a5000.small"]) == (1, 24)


def test_a_type_without_gpus_beside_others_makes_it_unknown() -> None:
    assert least_gpus(["a5000.small", "standard.large"]) is None


def test_one_that_is_not_known_makes_it_unknown() -> None:
    assert least_gpus(["a5000.small", "gpub300.huge"]) is None
