"""A hub that takes tunnels, and a node behind NAT with a server to be asked."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.core.nodes.beat import BeatError
from ollama_proxy.core.nodes.hub_routes import HEARTBEAT, TUNNEL
from ollama_proxy.core.nodes.node_keys import NodeKey, NodeKeyId
from ollama_proxy.hub.tunnels import Tunnels, tunnel_upstream
from ollama_proxy.node.tunnel_keeper import TunnelKeeper
from ollama_proxy.server.hub.tunnel_route import TunnelRoute
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.endpoint import Upstream
from ollama_proxy.upstream.loop_mark import LoopMark
from ollama_proxy.upstream.tunnel_transport import LOOK_S
from tests.node.agents import HUB_TOKEN
from tests.ports import held_port

KEYS = {"Bearer key-of-gpu-1": "gpu-1", "Bearer key-of-gpu-2": "gpu-2"}


def key_of(headers: Mapping[str, str]) -> NodeKey:
    node_id = KEYS.get(headers.get("Authorization", ""))
    if node_id is None:
        raise BeatError(401, "this hub has no such key of a node")
    return NodeKey(NodeKeyId(node_id), node_id, b"")


@dataclass(slots=True)
class TunnelHub:
    """Takes tunnels on a port of its own; ``client`` asks through them."""

    port: int
    tunnels: Tunnels
    client: UpstreamClient
    changed: list[str]
    look_s: float = LOOK_S
    opened: int = 0
    beats: list[dict[str, Any]] = field(default_factory=list)
    runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{TUNNEL}"

    @property
    def upstream(self) -> Upstream:
        return tunnel_upstream("gpu-1", HUB_TOKEN)

    def _key_of(self, headers: Mapping[str, str]) -> NodeKey:
        found = key_of(headers)
        self.opened += 1
        return found

    async def _beat(self, request: web.Request) -> web.Response:
        self.beats.append(await request.json())
        return web.json_response({"status": "ok", "accepted": 1})

    async def back(self) -> None:
        app = web.Application()
        app.router.add_post(HEARTBEAT, self._beat)
        app.router.add_get(
            TUNNEL, TunnelRoute(self.tunnels, self._key_of, look_s=self.look_s).take
        )
        self.runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()

    async def away(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def until(self, *, idle: int, of: int | None = None) -> None:
        """Wait until so many tunnels of gpu-1 are idle, of so many that are open."""
        wanted = (idle if of is None else of, idle)
        async with asyncio.timeout(20):
            while self.tunnels.count("gpu-1") != wanted:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def tunnel_hub(
    *, wait_s: float = 5.0, most: int = 66, look_s: float = LOOK_S
) -> AsyncIterator[TunnelHub]:
    changed: list[str] = []
    tunnels = Tunnels(changed.append, wait_s=wait_s, most_per_node=most)
    client = UpstreamClient(LoopMark("owner"), dial=tunnels.dial)
    hub = TunnelHub(held_port(), tunnels, client, changed, look_s)
    await hub.back()
    try:
        yield hub
    finally:
        await client.aclose()
        await hub.away()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence_s: float
) -> None:
    """Pass bytes on until they end, or there are none for so long."""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while True:
            async with asyncio.timeout(silence_s):
                data = await reader.read(65536)
            if not data:
                break
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def impatient_proxy(port: int, silence_s: float) -> AsyncIterator[int]:
    """Run a proxy that closes connections which are silent in one direction."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            _pass_on(reader, back, silence_s), _pass_on(there, writer, silence_s)
        )

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def tunnelled_node(
    hub: TunnelHub,
    app: web.Application,
    *,
    slots: int = 1,
    key: str = "key-of-gpu-1",
    url: str = "",
) -> AsyncIterator[TunnelKeeper]:
    """Serve an application through tunnels, and on no port.

    ``url``: where they go, if not straight to the hub.
    """
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    assert runner.server is not None
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        keeper = TunnelKeeper(
            session,
            url or hub.url,
            runner.server,
            slots=slots,
            rng=random.Random(1),
        )
        try:
            async with scoped_task(keeper.run(), name="tunnels"):
                yield keeper
        finally:
            await runner.cleanup()
