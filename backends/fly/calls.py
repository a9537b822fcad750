"""Call the Machines API for one app, within Fly's rate limits.

The limits are observed on our side: one call a second per action and machine, three in
a burst; five a second for reads of one machine.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from aiolimiter import AsyncLimiter

from ollama_proxy.backends.base.json_client import RestClient
from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.fly.failures import NoAppError, failure
from ollama_proxy.backends.patience import Patience, Sleep
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import BackendError, NotFoundError

_NONCE = "fly-machine-lease-nonce"
_MAX_LIMITERS = 200

_Thing = TypeVar("_Thing")


class AppCalls:
    """Sends the calls of one app, and parses the responses."""

    def __init__(
        self,
        app: str,
        *,
        url: str,
        token: str,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
        timing: CloudTiming = STANDARD,
    ) -> None:
        self._app = app
        self._timing = timing
        self._client = RestClient(
            url.removesuffix("/v1") + "/v1",
            token,
            clock,
            setting="FLY_FLAPS_BASE_URL",
            timing=timing,
        )
        self._patience = Patience(clock, sleep, cloud="Fly")
        self._limiters: dict[str, AsyncLimiter] = {}

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def read(self, read: Callable[[Any], _Thing], answer: Any) -> _Thing:
        """Return what an answer is of; one of an unknown shape names its settings."""
        try:
            return read(answer)
        except BackendError as error:
            where = f"FLY_APP ({self._app!r}) and FLY_FLAPS_BASE_URL"
            said = f"{error}; try again later, or check {where}"
            raise type(error)(said) from error

    async def listed(self, path: str) -> Any:
        """Return what the app has of a kind; raises `NoAppError` if it is not there."""
        try:
            return await self.call("GET", path)
        except NotFoundError as error:
            message = (
                f"there is no app {self._app!r}: check FLY_APP, or have"
                " `ollama-proxy deploy` make it"
            )
            raise NoAppError(message) from error

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | int] | None = None,
        body: object = None,
        nonce: str | None = None,
        whole: bool = False,
        timeout_s: float | None = None,
    ) -> Any:
        """Return the response of one call; ``whole`` paths are not relative to the app.

        Sent again while Fly answers 429, for 75 s at most.
        """
        place = path if whole else f"/apps/{self._app}{path}"
        reads = method == "GET" or path == "/platform/placements"

        def named(status: int, said: str, told: object) -> BackendError:
            said = f"{said}, of FLY_APP ({self._app!r})"
            return failure(reads=reads, status=status, said=said, body=told)

        async def send() -> Any:
            await self._limiter(method, place).acquire()
            return await self._client.call(
                method,
                place,
                named,
                query=query,
                body=body,
                headers={_NONCE: nonce} if nonce else None,
                timeout_s=timeout_s,
            )

        return await self._patience.through(send)

    def _limiter(self, method: str, place: str) -> AsyncLimiter:
        """Return what paces an action on a thing."""
        if len(self._limiters) > _MAX_LIMITERS:
            self._limiters.clear()
        key = f"{method} {place}"
        if key not in self._limiters:
            is_look = method == "GET" and "/machines/" in place
            pace = self._timing.looks if is_look else self._timing.actions
            self._limiters[key] = AsyncLimiter(*pace)
        return self._limiters[key]
