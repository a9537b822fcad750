"""A hub that machines join on a real socket, and that breaks off when told to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from aiohttp import web
from aiohttp.typedefs import Handler

from ollama_proxy.core.nodes.legacy_rule import LegacyMode, LegacyRule
from ollama_proxy.hub.beat_access import NodeAccess
from ollama_proxy.server.admin.small_body import read_small
from ollama_proxy.server.hub import joins
from ollama_proxy.server.hub.joins import JoinRoutes
from tests.hub.rig import JoinRig


@dataclass
class ServedHub:
    """A hub's routes to join. ``cuts``: how many answers are lost after the work.

    ``seen``: the headers and bodies that it got. ``redirect``: where it sends askers.
    ``beats``: of nodes that showed their key.
    """

    rig: JoinRig
    port: int = 0
    is_tls: bool = True
    cuts: int = 0
    redirect: str = ""
    seen: list[str] = field(default_factory=list)
    beats: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http{'s' if self.is_tls else ''}://127.0.0.1:{self.port}"


HUB = web.AppKey("hub", ServedHub)


async def _noted(request: web.Request, most: int) -> bytes | None:
    body = await read_small(request, most)
    request.app[HUB].seen.append((body or b"").decode())
    return body


@contextlib.asynccontextmanager
async def serving(
    rig: JoinRig, *, is_tls: bool = True, port: int = 0
) -> AsyncIterator[ServedHub]:
    """Serve the routes of a hub until the block ends."""
    hub = ServedHub(rig, port=port, is_tls=is_tls)

    @web.middleware
    async def faulty(request: web.Request, handler: Handler) -> web.StreamResponse:
        hub.seen.append(f"{request.raw_path} {dict(request.headers)}")
        if hub.redirect:
            raise web.HTTPTemporaryRedirect(hub.redirect)
        answer: web.StreamResponse = await handler(request)
        if hub.cuts > 0 and request.method == "POST":
            hub.cuts -= 1
            assert request.transport is not None
            request.transport.abort()
        return answer

    app = web.Application(middlewares=[faulty])
    app[HUB] = hub
    access = NodeAccess(rig.keyring, LegacyRule(LegacyMode.AUTO), lambda: False)
    app.add_routes(JoinRoutes(rig.joining, access).routes())

    async def take_beat(request: web.Request) -> web.Response:
        sender = access.admit(request.remote or "", request.headers)
        beat = await request.json()
        assert sender.node_id == beat["node_id"]
        hub.beats.append({"port": beat["port"], "scheme": beat["agent"]["scheme"]})
        return web.json_response({"status": "ok"})

    app.router.add_post("/nodes/heartbeat", take_beat)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context = rig.authority.hub_context if is_tls else None
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
    await site.start()
    try:
        server = site._server
        assert isinstance(server, asyncio.Server)
        hub.port = server.sockets[0].getsockname()[1]
        with mock.patch.object(joins, "read_small", _noted):
            yield hub
    finally:
        await runner.cleanup()
