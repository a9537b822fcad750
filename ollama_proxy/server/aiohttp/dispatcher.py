"""Find the handler of a request, at a cost independent of its path.

aiohttp's dispatcher looks up every prefix of a path that ends at a slash, and copies
each: 200 000 slashes take 7 s, in which no other request is served.
"""

import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ollama_proxy.core.nodes.hub_routes import NODES
from ollama_proxy.core.ollama.routes import is_own_path
from ollama_proxy.server.aiohttp.hub_page import PAGE, is_for_page
from ollama_proxy.server.raw_target import raw_path

ExpectHandler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse | None]]

_NODES = f"{NODES}/"

DEEPEST_ROUTE: Final = 32
"""More slashes than in the path of any route but the one for all paths."""


class Dispatcher(web.UrlDispatcher):
    """Finds routes by path; a path with many slashes goes to the one for any path."""

    def __init__(self) -> None:
        super().__init__()
        self._any_path: web.Resource | None = None

    def add_any_path(self, handler: Handler, *, expect_handler: ExpectHandler) -> None:
        """Have a handler for every path and method that nothing else is there for."""
        self._any_path = self.add_resource(r"/{path:[\s\S]*}")  # `.` matches no newline
        self._any_path.add_route("*", handler, expect_handler=expect_handler)

    async def resolve(self, request: web.Request) -> web.UrlMappingMatchInfo:
        """Return the route of a request, and what its pattern has found."""
        if is_for_page(request):
            return await super().resolve(request.clone(rel_url=PAGE))
        is_deep = request.rel_url.path_safe.count("/") > DEEPEST_ROUTE
        if (is_deep or _is_encoded(request)) and self._any_path is not None:
            match, _ = await self._any_path.resolve(request)
            if match is not None:
                return match
        return await super().resolve(request)


def _is_encoded(request: web.Request) -> bool:
    """Tell whether a path could be one of ours only once it is decoded.

    Access is judged by the path as it was written: ``/%2d/keys`` is no order then, so
    it may be none here. Ollama's routes all have one handler.
    """
    path = raw_path(request)
    return "%" in path and not (is_own_path(path) or path.startswith(_NODES))


def application(
    dispatcher: Dispatcher, middlewares: Sequence[Middleware]
) -> web.Application:
    """Return an application with our dispatcher.

    aiohttp announces the removal of custom routers in version 4 by a warning, silenced
    here. ``debug`` is turned off explicitly, or a response with status 500 would
    contain a traceback.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return web.Application(router=dispatcher, middlewares=middlewares, debug=False)
