"""Which things of other deployments may be removed, and how they are described."""

import pytest

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Belonging
from ollama_proxy.fleet.owners import (
    date_in,
    described,
    judge,
    length,
    others,
    removal,
    with_removal,
)

NOW = 1_800_000_000.0
THEIRS = "aaaaaaaaaaaaaaaa"
LAUNCH = LaunchId("l1111111111111111")


def instance(
    lease_s: float | None, *, runs: bool = True, owner: str = THEIRS, name: str = "vm"
) -> Belonging:
    lease_end = None if lease_s is None else NOW + lease_s
    made_at = NOW - 7200.0
    return Belonging(
        name, name, owner, "running", LAUNCH, runs, made_at, lease_end, 1.25
    )


VOLUME = Belonging("volume", "volume", THEIRS, "created", per_hour=0.001)


def test_what_no_proxy_has_renewed_is_deleted_with_what_hangs_on_it() -> None:
    vm = instance(-1.0)
    found = judge([VOLUME, vm], THEIRS, [], NOW)

    assert found.deleted == [vm, VOLUME]
    assert found.refused == []


def test_what_shows_a_living_proxy_stays_with_its_volume() -> None:
    found = judge([VOLUME, instance(60.0)], THEIRS, [], NOW)

    assert found.deleted == []
    assert len(found.refused) == 2


def test_beside_a_living_proxy_only_what_runs_for_nobody_goes() -> None:
    lost, stopped = instance(-1.0, name="lost"), instance(-1.0, runs=False)
    found = judge([stopped, lost, instance(60.0)], THEIRS, [], NOW)

    assert found.deleted == [lost]


def test_a_launch_that_is_named_goes_although_a_proxy_renews_it() -> None:
    found = judge([instance(60.0), VOLUME], THEIRS, [LAUNCH], NOW)

    assert len(found.deleted) == 2


@pytest.mark.parametrize("owner", ["bbbbbbbbbbbbbbbb", "", "aaaa"])
def test_nothing_of_another_owner_is_ever_chosen(owner: str) -> None:
    unmarked = instance(-1.0, owner="")

    assert judge([instance(-1.0), unmarked], owner, [], NOW) == ([], [])


def test_what_is_stopped_or_was_never_marked_shows_no_proxy() -> None:
    for one in (instance(60.0, runs=False), instance(None)):
        assert judge([one], THEIRS, [], NOW).deleted == [one]


def test_others_are_those_of_other_owners() -> None:
    ours = instance(60.0, owner="bbbbbbbbbbbbbbbb")

    assert others([ours, VOLUME], "bbbbbbbbbbbbbbbb") == [VOLUME]


def test_a_thing_is_told_with_age_price_and_the_command_that_removes_it() -> None:
    dead, alive = instance(-1.0), instance(60.0)

    assert described(dead, NOW) == (
        f"vm (running), owner {THEIRS}, launch {LAUNCH}, age 2 h, 1.25 per hour,"
        " its lease is over"
    )
    assert removal(dead, NOW) == f"ollama-proxy sweep --owner {THEIRS}"
    assert removal(alive, NOW).endswith(f"--owner {THEIRS} --launch {LAUNCH}")
    assert "cloud's console" in with_removal(instance(-1.0, owner=""), NOW)


@pytest.mark.parametrize(
    ("length_s", "told"),
    [(-5.0, "0 min"), (3600.0, "60 min"), (86400.0, "24 h"), (864000.0, "10 days")],
)
def test_ages_are_told_roughly(length_s: float, told: str) -> None:
    assert length(length_s) == told


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-21T00:00:00Z", 1795219200.0),
        ("2026-11-21T01:00:00.5+01:00", 1795219200.5),
        ("2026-11-21T00:00:00", None),
        ("", None),
        ("yesterday", None),
    ],
)
def test_only_a_whole_date_is_one(text: str, moment: float | None) -> None:
    assert date_in(text) == moment
