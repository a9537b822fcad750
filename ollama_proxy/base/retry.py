"""Repeat calls with growing pauses, using tenacity.

Lint bans tenacity's `stop_after_delay` and `stop_before_delay`, which read the
machine's clock: a time limit is a ``stop`` of ours with the injected `Clock`.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import RetryCallState

Sleep = Callable[[float], Awaitable[None]]
"""Sleeps between two tries; tests pass one that advances virtual time."""


@dataclass(frozen=True, slots=True)
class GrowingPause:
    """Holds the pauses between tries: ``first_s``, times ``factor``, up to ``most_s``.

    ``rng`` varies each by a fifth, so that many callers do not retry at once.
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
        # 64 doublings exceed any bound, and do not overflow a float.
        length_s = min(self.most_s, self.first_s * self.factor ** min(tries - 1, 64))
        return length_s if self.rng is None else length_s * self.rng.uniform(0.8, 1.2)


def error_of(state: RetryCallState) -> BaseException | None:
    """Return what the last try raised; None if it returned."""
    return state.outcome.exception() if state.outcome is not None else None
