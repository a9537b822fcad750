"""Compute the present moment at a start, and check recorded moments.

Pure. Moments are those of `Clock.now`: seconds on one time line through all processes
of a deployment, so that a process can compare its moments with those that another one
recorded. Only the time without a process must be estimated, and only after a reboot:
then there is only the date, which may have been set in between.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

EARLIEST: Final = 1_767_225_600.0
"""2026-01-01, before the first version: a machine with an earlier date has no date."""

_LATEST: Final = 1e11
"""In the year 5138; far beyond it a `float` of seconds does not count seconds."""

_LONGEST_ABSENCE_S: Final = 366 * 86_400.0
"""If two dates are further apart, one of them was wrong."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Holds readings of a machine's clocks at one instant.

    ``wall``: the date, in epoch seconds. ``uptime_s``: seconds since boot. ``boot``: id
    of that boot; empty if the system has none.
    """

    wall: float
    uptime_s: float
    boot: str


class Mark(msgspec.Struct, frozen=True):
    """Holds a moment, and what the machine's clocks showed then: see `Reading`."""

    now: float
    wall: float
    uptime_s: float
    boot: str


def moment_at_start(last: Mark | None, here: Reading) -> float:
    """Return the moment at the start of a process; ``last``: the mark it continues.

    Never before the last one. If the elapsed time is unknown, it counts as 0 s, so
    pauses that were running begin anew after the restart.
    """
    if last is None or not EARLIEST <= last.now < _LATEST:
        return here.wall if EARLIEST <= here.wall < _LATEST else EARLIEST
    return last.now + _passed_s(last, here)


def _passed_s(last: Mark, here: Reading) -> float:
    is_same_boot = bool(here.boot) and here.boot == last.boot
    if is_same_boot and 0.0 <= last.uptime_s <= here.uptime_s:
        return here.uptime_s - last.uptime_s
    if min(last.wall, here.wall) < EARLIEST:
        return 0.0
    passed_s = here.wall - last.wall
    return passed_s if 0.0 <= passed_s <= _LONGEST_ABSENCE_S else 0.0


def is_impossible(moment: float, now: float) -> bool:
    """Tell whether a recorded moment is the date of a clock that was not set yet.

    Older versions recorded dates. Zero stands for no moment.
    """
    return 0.0 < moment < EARLIEST <= now


def restored_moment(moment: float, now: float) -> float:
    """Return a moment on record; one that can't be counts from the restart."""
    return now if is_impossible(moment, now) else min(moment, now)


def unset_date(wall: float) -> str | None:
    """Return in words that a date was never set; None if it may be right."""
    if is_date_known(wall):
        return None
    day = datetime.fromtimestamp(max(wall, 0.0), UTC).date()
    return (
        f"this machine's date is {day}; set its clock (`timedatectl set-ntp true`), for"
        " clouds refuse calls and certificates by such a date"
    )


def is_date_known(wall: float) -> bool:
    """Tell whether a date may be right: a machine without a battery boots in 1970."""
    return wall >= EARLIEST
