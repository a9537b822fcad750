"""Cache answers that seldom change for ten minutes, so that a start needs fewer calls.

A start needs a dozen calls. Under a rate limit it is interrupted and begun again, and
would never get to its purchase if it repeated all of them each time.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.base.clock import Clock

Read = Callable[..., Awaitable[Any]]
"""Reads one operation of a zone, named as in the SDK, with its arguments."""

_KEPT_S = 600.0


class Remembered:
    """Reads what a zone sells, and remembers it until `forget`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, str, str], tuple[float, Any]] = {}

    def of(self, api: ExoscaleApi) -> Read:
        """Return what reads from one zone; it raises as `ExoscaleApi.call` does."""

        async def read(operation: str, **arguments: Any) -> Any:
            key = (api.zone, operation, repr(sorted(arguments.items())))
            read_at, answer = self._kept.get(key, (-_KEPT_S, None))
            if not 0.0 <= self._clock.now() - read_at < _KEPT_S:
                answer = await api.call(operation, **arguments)
                self._kept[key] = self._clock.now(), answer
            return answer

        return read

    def forget(self, zone: str) -> None:
        """Forget a zone's answers, after they led to a refusal."""
        for key in [key for key in self._kept if key[0] == zone]:
            del self._kept[key]
