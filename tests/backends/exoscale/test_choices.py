"""Names that people write, and what is bought for them."""

import pytest

from ollama_proxy.backends.exoscale.choices import (
    InstanceType,
    Template,
    check_disk,
    find_template,
    find_type,
)
from ollama_proxy.backends.exoscale.drivers import DriverRule
from ollama_proxy.base.errors import SpecError

A5000 = InstanceType("id-a", "gpua5000", "small", gpus=1, zones=("at-vie-2",))
TYPES = [
    InstanceType("id-s", "standard", "large"),
    A5000,
    InstanceType("id-r", "gpurtx6000pro", "small", gpus=1),
    InstanceType("id-v", "gpu2", "small", gpus=1, authorized=False),
]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("gpua5000.small", "id-a"),
        ("a5000.small", "id-a"),
        (" A5000.Small ", "id-a"),
        ("rtx6000pro.small", "id-r"),
        ("large", "id-s"),
        ("standard.large", "id-s"),
        ("id-a", "id-a"),
    ],
)
def test_a_type_is_found_by_the_names_that_people_write(
    written: str, found: str
) -> None:
    assert find_type(TYPES, written, "at-vie-2").id == found


@pytest.mark.parametrize(
    ("written", "zone", "says"),
    [
        ("h100.small", "at-vie-2", "with GPUs there are: gpua5000.small"),
        ("a5000.small", "de-fra-1", "not offered to this organisation in de-fra-1"),
        ("gpu2.small", "at-vie-2", "not offered to this organisation"),
    ],
)
def test_what_can_not_be_bought_is_refused_in_words(
    written: str, zone: str, says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        find_type(TYPES, written, zone)


@pytest.mark.parametrize(
    ("family", "gpus", "driver"),
    [
        ("standard", 0, None),
        ("gpua5000", 1, DriverRule(("server", "server-open"), 550)),
        ("gpunewer", 1, DriverRule(("server", "server-open"), 550)),
        ("gpu", 1, DriverRule(("server",), 570, 580)),
        ("gpu2", 1, DriverRule(("server",), 570, 580)),
        ("gpurtx6000pro", 1, DriverRule(("server-open",), 570)),
        ("gpub300", 1, DriverRule(("server-open",), 570)),
    ],
)
def test_the_driver_follows_the_family(
    family: str, gpus: int, driver: DriverRule | None
) -> None:
    assert InstanceType("x", family, "small", gpus=gpus).driver == driver


def test_the_newest_template_of_a_name_is_taken_and_an_own_one_first() -> None:
    old = Template("old", "Ubuntu", "2025-01-01T00:00:00Z")
    new = Template("new", "Ubuntu", "2026-01-01T00:00:00Z")
    own = Template("own", "Ubuntu", "2024-01-01T00:00:00Z")

    assert find_template([], [new, old], "Ubuntu", "z").id == "new"
    assert find_template([own], [new, old], "Ubuntu", "z").id == "own"


def test_a_template_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match="needs 100 GiB, the disk has 50"):
        check_disk(Template("t", "baked", "", 100 << 30), 50)


def test_another_zones_type_is_told_with_its_zones_and_the_ones_here() -> None:
    with pytest.raises(SpecError) as raised:
        find_type([*TYPES[:1], A5000], "a5000.small", "de-fra-1")

    assert "in de-fra-1 (there is one in at-vie-2)" in str(raised.value)


def test_an_unknown_template_is_told_with_the_names_that_there_are() -> None:
    public = [Template(str(n), f"Linux {n:02d}") for n in range(30)] * 2
    with pytest.raises(SpecError) as raised:
        find_template([Template("own", "Baked")], public, "Linus", "at-vie-2")

    said = str(raised.value)
    assert said.startswith("EXOSCALE_TEMPLATE: there is no template 'Linus' in at-vie")
    assert "there are: Baked, Linux 00, Linux 01" in said
    assert said.endswith("and 19 more")
