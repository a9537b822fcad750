"""Answer ``GET /-/``: the page that people look at; it changes nothing."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import web

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.server.caller import caller_of
from ollama_proxy.server.page.login_page import login_page
from ollama_proxy.server.page.rendering import as_response, html_reply
from ollama_proxy.server.page.view import Viewer, page_view
from ollama_proxy.serving.active_requests import ActiveRequests
from ollama_proxy.serving.active_view import active_body
from ollama_proxy.serving.status import Status

_HOME = "/-/"
"""Where the page is by its own name; a hub has it at ``/`` as well."""


class ListedNodes(Protocol):
    """Knows the nodes: see `ollama_proxy.hub.registry.NodeRegistry`."""

    def listed(self) -> list[dict[str, Any]]:
        """Return every node, as ``GET /nodes`` lists it."""


class PageHandlers:
    """Shows the state of the proxy; to administrators its requests, too.

    ``nodes``: those of the hub; None without one.
    """

    def __init__(
        self,
        status: Status,
        active: ActiveRequests,
        clock: Clock,
        nodes: ListedNodes | None = None,
    ) -> None:
        self._status = status
        self._nodes = nodes
        self._active = active
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/-/", self.page), web.get("/-/login", self.form)]

    async def page(self, request: web.Request) -> web.Response:
        """Return the page; with ``?still`` it is not refreshed by itself."""
        caller = caller_of(request)
        body = self._status.body()
        if caller.is_admin:
            now = asyncio.get_running_loop().time()
            body["active"] = active_body(self._active, now)
        nodes = None if self._nodes is None else self._nodes.listed()
        view = page_view(body, _viewer(caller), nodes)
        shown = html_reply(
            200,
            "page.html",
            view=view,
            at=datetime.fromtimestamp(self._clock.wall(), UTC),
            is_still="still" in request.query,
            home="" if request.path.startswith(_HOME) else f".{_HOME}",
        )
        return as_response(shown)

    async def form(self, _request: web.Request) -> web.Response:
        """Return the form that takes a key, where none is needed or one was sent."""
        return as_response(login_page())


def _viewer(caller: Caller) -> Viewer:
    name = caller.key.name if caller.key is not None else ""
    return Viewer(name, has_session=caller.is_own_page, is_admin=caller.is_admin)
