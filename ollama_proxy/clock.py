"""Time, as something that is passed in."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time in seconds since the epoch; it never runs backwards."""

    def now(self) -> float:
        """Return the present moment."""


class SystemClock:
    """The machine's time, proof against a clock that is set while we run.

    The epoch is read once; from there on a monotonic clock counts, one that
    goes on while the machine sleeps where the system has it. So an idle
    timeout is neither lengthened nor cut by a correction of the wall clock,
    and a laptop that wakes up stops an instance that has been idle meanwhile.
    """

    def __init__(self) -> None:
        self._clock_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._epoch = time.time() - self._elapsed()  # noqa: TID251 - read here, once

    def _elapsed(self) -> float:
        return time.clock_gettime(self._clock_id)

    def now(self) -> float:
        """Return the present moment."""
        return self._epoch + self._elapsed()
