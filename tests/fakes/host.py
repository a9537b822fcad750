"""A machine whose date can be set, and which can be booted anew."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from ollama_proxy.base.clock import Machine


def _elapsed_s() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Host:
    """Its clocks go as the loop's does; the date is the first of a year, and on."""

    year: int
    boots: int = 1
    _set_at: float = 0.0
    _booted_at: float = 0.0

    def __post_init__(self) -> None:
        self.set_date(self.year)
        self._booted_at = _elapsed_s() - 30.0

    def set_date(self, year: int) -> None:
        self.year, self._set_at = year, _elapsed_s()

    def reboot(self, year: int) -> None:
        self.boots, self._booted_at = self.boots + 1, _elapsed_s()
        self.set_date(year)

    def machine(self) -> Machine:
        """Return its clocks, as a new process finds them."""
        boot, booted_at = f"boot {self.boots}", self._booted_at
        return Machine(self.date, lambda: _elapsed_s() - booted_at, boot)

    def date(self) -> float:
        first = datetime(self.year, 1, 1, 0, 1, tzinfo=UTC).timestamp()
        return first + _elapsed_s() - self._set_at
