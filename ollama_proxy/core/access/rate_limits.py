"""Count requests a minute with a bucket that is refilled continuously. Pure."""

from dataclasses import dataclass
from typing import Final

_MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """Holds how many requests may begin at once at a moment; refilled up to ``rpm``.

    ``level`` is below zero if the clock was set back: what a jump forwards had refilled
    is taken away again.
    """

    rpm: int
    level: float
    at: float

    def refilled(self, rpm: int, now: float) -> "Bucket":
        """Return the bucket at a moment, with the present limit.

        Each step adds or takes at most a minute's requests, so that a clock that jumps
        forwards and back allows no request more.
        """
        passed_s = min(max(now - self.at, -_MINUTE_S), _MINUTE_S)
        level = self.level + passed_s * rpm / _MINUTE_S
        return Bucket(rpm, min(max(level, -float(rpm)), float(rpm)), now)

    def without_one(self) -> "Bucket":
        """Return the bucket after a request began."""
        return Bucket(self.rpm, self.level - 1.0, self.at)

    def with_one_more(self) -> "Bucket":
        """Return the bucket as if a request had not begun."""
        return Bucket(self.rpm, min(self.level + 1.0, float(self.rpm)), self.at)


def wait_for_one_s(level: float, rpm: int) -> float | None:
    """Return the seconds until a request may begin; None if none ever may."""
    return (1.0 - level) * _MINUTE_S / rpm if rpm > 0 else None
