"""Notice that the machine's date was set, or never was."""

import asyncio
from typing import Final, Protocol

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.moments import unset_date
from ollama_proxy.core.ollama.go_words import rfc3339

_LOOK_EVERY_S: Final = 15.0
_STEP_S: Final = 2.0  # in 15 s, clock slewing (0.5 ms/s) moves the date by 8 ms at most


class Marks(Protocol):
    """Keeps marks: the part of the store that is needed here."""

    def put_mark(self) -> None:
        """Write a mark of the clock."""


class DateWatch:
    """Checks the date every 15 s.

    When the date was set, a mark with the new date is written to disk: after a reboot
    the elapsed time is the difference of two dates, and both must be on the same
    calendar.
    """

    def __init__(self, clock: Clock, marks: Marks) -> None:
        self._clock = clock
        self._marks = marks
        self._log = structlog.get_logger()
        self._ahead_s = self._read()

    def _read(self) -> float:
        return self._clock.wall() - self._clock.now()

    def look(self) -> None:
        """Detect a date that was set since the last look."""
        before_s, self._ahead_s = self._ahead_s, self._read()
        moved_s = self._ahead_s - before_s
        if abs(moved_s) >= _STEP_S:
            self._marks.put_mark()
            date = rfc3339(self._clock.wall())
            self._log.warning(log.DATE_SET, date=date, moved_s=round(moved_s, 1))

    async def run(self) -> None:
        """Check the date until cancelled; log at once if the machine has none."""
        if (unset := unset_date(self._clock.wall())) is not None:
            self._log.warning(log.DATE_UNSET, reason=unset)
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self.look()
