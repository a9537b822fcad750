"""Repeat calls with growing pauses, on tenacity.

tenacity's `stop_after_delay` and `stop_before_delay` read the machine's clock and are
banned by lint: a limit of time is a ``stop`` of ours that asks the injected `Clock`.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import RetryCallState

Sleep = Callable[[float], Awaitable[None]]
"""What waits between two tries; tests pass one that lets virtual time pass."""


@dataclass(frozen=True, slots=True)
class GrowingPause:
    """Holds the pauses between tries: ``first_s``, times ``factor``, up to ``most_s``.

    ``rng`` spreads each by a fifth, so that many callers do not come back together.
    """

    first_s: float
    most_s: float
    factor: float = 2.0
    rng: random.Random | None = None

    def __call__(self, state: RetryCallState) -> float:
        """Return the pause after a try, as tenacity asks for it."""
        return self.after(state.attempt_number)

    def after(self, tries: int) -> float:
        """Return the pause after so many tries in a row, in seconds."""
        # 64 doublings are more than any bound, and far from the largest float.
        length_s = min(self.most_s, self.first_s * self.factor ** min(tries - 1, 64))
        return length_s if self.rng is None else length_s * self.rng.uniform(0.8, 1.2)


def error_of(state: RetryCallState) -> BaseException | None:
    """Return what the last try raised; None if it returned."""
    return state.outcome.exception() if state.outcome is not None else None
