"""Time, as something that is passed in: how much of it passed, and the date."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one to measure time with, and one that tells the date.

    Both are in seconds since the epoch, but only for `wall` that is a promise.
    """

    def now(self) -> float:
        """Return the present moment, to be compared with other moments of this clock.

        It goes on second by second, also while the machine sleeps, whatever is done
        to the date.
        """

    def wall(self) -> float:
        """Return the date as the machine has it: what is told to others.

        It jumps when somebody sets it, by years where a machine boots in 1970.
        """


class SystemClock:
    """The machine's time, proof against a date that is set while we run.

    The epoch is read once; from there on a monotonic clock counts, one that
    goes on while the machine sleeps where the system has it. So an idle
    timeout is neither lengthened nor cut by a correction of the wall clock,
    and a laptop that wakes up stops an instance that has been idle meanwhile.
    """

    def __init__(self) -> None:
        self._clock_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._epoch = self.wall() - self._elapsed()

    def _elapsed(self) -> float:
        return time.clock_gettime(self._clock_id)

    def now(self) -> float:
        """Return the present moment."""
        return self._epoch + self._elapsed()

    def wall(self) -> float:
        """Return the date as the machine has it."""
        return time.time()  # noqa: TID251 - everybody else asks here


def date_of(clock: Clock, moment: float) -> float:
    """Return the date of a moment of `Clock.now`, as far as is known by now."""
    return clock.wall() - (clock.now() - moment)
