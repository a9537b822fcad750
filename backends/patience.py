"""Repeat calls that are refused for their rate (429), without starting over.

Such a call did nothing, so it can be repeated, even a purchase.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import RateLimitError

PATIENCE_S = 75.0
"""How long a call is repeated: less than the 120 s that the controller allows it."""

_FIRST_PAUSE_S = 1.0
_LEAST_PAUSE_S = 0.1  # "Retry-After: 0" must not cause a busy loop
_LONGEST_PAUSE_S = 20.0

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


class Patience:
    """Waits as an API asks; where a limit counts all calls, for all (`close_for`)."""

    def __init__(
        self, clock: Clock, sleep: Sleep = asyncio.sleep, *, cloud: str = "the cloud"
    ) -> None:
        self._cloud = cloud
        self._clock = clock
        self._sleep = sleep
        self._closed_until = 0.0

    async def through(self, send: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``send``, repeated as often as it is refused.

        Raises the last `RateLimitError` if the next attempt would be later than
        `PATIENCE_S` from now: the caller tries again, and continues the wait.
        """
        begun_at = self._clock.now()

        def is_too_late(state: RetryCallState) -> bool:
            return self._clock.now() + state.upcoming_sleep - begun_at > PATIENCE_S

        attempts = AsyncRetrying(
            retry=retry_if_exception_type(RateLimitError),
            wait=self._pause_s,
            stop=is_too_late,
            sleep=self._sleep,
            reraise=True,
        )
        return await attempts(self._when_open, send)

    async def _when_open(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send, unless another call was refused as too early: then this one is, too."""
        if (left_s := self._closed_until - self._clock.now()) > 0.0:
            raise RateLimitError(
                f"{self._cloud} limits this key's calls and refuses more for"
                f" {left_s:.0f} s; they go on after that",
                retry_after_s=left_s,
            )
        return await send()

    def close_for(self, length_s: float) -> None:
        """Let no call through for so long; called by the thread that was refused.

        The task that made that call may have been cancelled already.
        """
        until = self._clock.now() + length_s
        self._closed_until = max(self._closed_until, until)

    def _pause_s(self, state: RetryCallState) -> float:
        """Return the pause that was asked for, or else a growing one."""
        error = state.outcome.exception() if state.outcome is not None else None
        asked_s = error.retry_after_s if isinstance(error, RateLimitError) else None
        grown_s = min(
            _LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (state.attempt_number - 1)
        )
        return grown_s if asked_s is None else max(asked_s, _LEAST_PAUSE_S)
