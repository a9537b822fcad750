"""What moment it is at a start, and which moments on record are believed."""

import pytest

from ollama_proxy.base.moments import (
    EARLIEST,
    Mark,
    Reading,
    is_date_known,
    moment_at_start,
    restored_moment,
)

HOUR_S, DAY_S = 3600.0, 86_400.0
TODAY = EARLIEST + 300 * DAY_S
UNSET = 25.0
"""The date of a machine without a battery, just booted: 1970-01-01T00:00:25."""

MOMENT = TODAY + 17.0


def left(wall: float, *, uptime_s: float = 500.0, boot: str = "boot a") -> Mark:
    return Mark(MOMENT, wall, uptime_s, boot)


def passed_s(last: Mark, here: Reading) -> float:
    return moment_at_start(last, here) - last.now


def test_a_new_deployment_begins_with_the_date() -> None:
    assert moment_at_start(None, Reading(TODAY, 9.0, "boot a")) == TODAY


@pytest.mark.parametrize("wall", [UNSET, -5.0, 9.2e18])
def test_a_new_deployment_without_a_date_begins_where_all_moments_do(
    wall: float,
) -> None:
    assert moment_at_start(None, Reading(wall, 9.0, "boot a")) == EARLIEST


@pytest.mark.parametrize("moment", [0.0, -1.0, 1e300])
def test_a_mark_that_can_not_have_been_is_none(moment: float) -> None:
    last = Mark(moment, TODAY, 500.0, "boot a")

    assert moment_at_start(last, Reading(TODAY, 600.0, "boot a")) == TODAY


@pytest.mark.parametrize("before", [UNSET, TODAY, TODAY + 73 * 365 * DAY_S])
@pytest.mark.parametrize("after", [UNSET, TODAY, TODAY + 73 * 365 * DAY_S])
def test_without_a_reboot_the_date_does_not_matter(before: float, after: float) -> None:
    here = Reading(after, 500.0 + HOUR_S, "boot a")

    assert passed_s(left(before), here) == HOUR_S


def test_over_a_reboot_the_date_tells_how_much_time_passed() -> None:
    here = Reading(TODAY + 3 * DAY_S, 9.0, "boot b")

    assert passed_s(left(TODAY), here) == 3 * DAY_S


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (UNSET, TODAY),  # set by the network since
        (TODAY, UNSET),  # a battery died
        (UNSET, UNSET + HOUR_S),  # booted twice without a date
        (UNSET + HOUR_S, UNSET),
        (TODAY + 73 * 365 * DAY_S, TODAY),  # 2099 was wrong
        (TODAY, TODAY + 73 * 365 * DAY_S),
        (TODAY, TODAY - HOUR_S),  # kept in a file while it was off
    ],
)
def test_where_nobody_can_tell_no_time_has_passed(before: float, after: float) -> None:
    assert passed_s(left(before), Reading(after, 9.0, "boot b")) == 0.0


def test_a_system_without_names_of_its_boots_goes_by_the_date() -> None:
    last = left(TODAY, boot="")

    assert passed_s(last, Reading(TODAY + HOUR_S, 9000.0, "")) == HOUR_S


@pytest.mark.parametrize("uptime_s", [-1.8e9, 600.0])
def test_an_uptime_that_can_not_have_been_is_not_believed(uptime_s: float) -> None:
    last = left(TODAY, uptime_s=uptime_s)

    assert passed_s(last, Reading(TODAY + HOUR_S, 500.0, "boot a")) == HOUR_S


@pytest.mark.parametrize(
    ("moment", "believed"),
    [
        (MOMENT - HOUR_S, MOMENT - HOUR_S),
        (MOMENT + 73 * 365 * DAY_S, MOMENT),  # older versions: the clock was set back
        (UNSET, MOMENT),  # older versions: it was not set yet
        (0.0, 0.0),  # none
    ],
)
def test_a_moment_that_can_not_have_been_counts_from_the_restart(
    moment: float, believed: float
) -> None:
    assert restored_moment(moment, MOMENT) == believed


def test_a_date_before_this_program_is_none() -> None:
    assert [is_date_known(wall) for wall in (UNSET, TODAY)] == [False, True]
