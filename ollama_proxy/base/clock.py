"""Pass time in as an argument: how much of it passed, and the date."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ollama_proxy.base.moments import Mark, Reading, moment_at_start


class Clock(Protocol):
    """Tells time by two clocks: one measures intervals, the other has the date.

    Both return seconds since the epoch, but only `wall` guarantees it.
    """

    def now(self) -> float:
        """Return the present moment, to be compared with other moments of this clock.

        It advances second by second, even while the machine sleeps, and independently
        of changes to the date.
        """

    def wall(self) -> float:
        """Return the machine's date, for values that others read.

        It jumps when it is set, by decades on a machine that boots in 1970.
        """


class Marking(Protocol):
    """Tells by what a later process knows how much time has passed."""

    def mark(self) -> Mark:
        """Return the present moment, with what the machine's clocks show."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Reads the clocks of a machine.

    ``wall``: its date. ``uptime_s``: seconds since the boot ``boot``, including sleep
    if the system counts it.
    """

    wall: Callable[[], float]
    uptime_s: Callable[[], float]
    boot: str = ""

    def reading(self) -> Reading:
        """Return what they show."""
        return Reading(self.wall(), self.uptime_s(), self.boot)


def this_machine() -> Machine:
    """Return the clocks of the machine that we run on."""
    clock_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Machine(_date, partial(time.clock_gettime, clock_id), _boot())


def _date() -> float:
    return time.time()  # noqa: TID251 - everybody else asks the clock


def _boot() -> str:
    """Return what names this boot; empty where the system has no name for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


class SystemClock:
    """Measures time independently of changes to the machine's date, across restarts.

    ``last``: the mark of the previous process, where `now` continues. From there it
    counts with a clock that can't be set, and that includes sleep if the system
    supports it. So a corrected date neither lengthens nor shortens an idle time-out,
    and a laptop that wakes up stops an instance that was idle meanwhile.
    """

    def __init__(
        self, last: Mark | None = None, machine: Machine | None = None
    ) -> None:
        self._machine = machine or this_machine()
        self._uptime_s = self._machine.uptime_s
        here = self._machine.reading()
        self._booted_at = moment_at_start(last, here) - here.uptime_s

    def now(self) -> float:
        """Return the present moment."""
        return self._booted_at + self._uptime_s()

    def wall(self) -> float:
        """Return the date as the machine has it."""
        return self._machine.wall()

    def mark(self) -> Mark:
        """Return what a later process needs to go on from here."""
        here = self._machine.reading()
        now = self._booted_at + here.uptime_s
        return Mark(now, here.wall, here.uptime_s, here.boot)


class MarkStore(Protocol):
    """Keeps marks."""

    def mark(self) -> Mark | None:
        """Return the last mark, if there is one."""

    def mark_with(self, clock: Marking) -> None:
        """Write a mark of this clock now, and with each record from now on."""

    def put_mark(self) -> None:
        """Write a mark of the clock; without a disk the one before has to do."""


def open_clock(store: MarkStore, machine: Machine | None = None) -> SystemClock:
    """Return a clock that continues that of the previous process."""
    clock = SystemClock(store.mark(), machine)
    store.mark_with(clock)
    return clock


def date_of(clock: Clock, moment: float) -> float:
    """Return the date of a moment of `Clock.now`, by the machine's present date."""
    return clock.wall() - (clock.now() - moment)
