"""Answer ``GET /-/wait``: at once when an instance is ready, or when time is over."""

from typing import Final

from aiohttp import web

from ollama_proxy.base.parsers import parse_duration
from ollama_proxy.server.admin.answers import json_answer
from ollama_proxy.serving.pool_map import PoolMap
from ollama_proxy.serving.pool_services import PoolServices
from ollama_proxy.serving.ready_watch import (
    MOST_WATCHERS,
    ReadyWatch,
    TooManyWatchersError,
)

DEFAULT_WAIT: Final = "60s"
LONGEST_WAIT_S: Final = 600.0

_BAD, _NOT_FOUND, _TOO_MANY, _NOT_YET = 400, 404, 429, 503


class ReadyWait:
    """Answers requests that wait for an instance; none is woken or kept by them."""

    def __init__(self, pools: PoolMap, watch: ReadyWatch) -> None:
        self._pools = pools
        self._watch = watch

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/-/wait", self.wait)]

    async def wait(self, request: web.Request) -> web.Response:
        """Wait for a ready instance, of ``?pool=`` or any, for ``?timeout=``."""
        name, text = request.query.get("pool"), request.query.get("timeout")
        if name is not None and name not in self._pools.names:
            known = ", ".join(self._pools.names)
            message = f"no pool is named {name[:100]!r}; there are {known}"
            return json_answer({"error": message}, status=_NOT_FOUND)
        try:
            within_s = min(parse_duration(text or DEFAULT_WAIT), LONGEST_WAIT_S)
        except ValueError as error:
            return json_answer({"error": f"timeout: {error}"}, status=_BAD)
        asked = list(self._pools) if name is None else [self._pools[name]]
        try:
            found = await self._watch.wait(asked, within_s)
        except TooManyWatchersError:
            message = f"{MOST_WATCHERS} requests wait here already; ask again later"
            return json_answer({"error": message}, status=_TOO_MANY)
        return _told(found, within_s)


def _told(found: PoolServices | None, within_s: float) -> web.Response:
    if found is not None:
        return json_answer({"ready": True, "pool": found.name})
    message = f"no instance was ready within {within_s:g} s; this wait starts none"
    return json_answer({"ready": False, "error": message}, status=_NOT_YET)
