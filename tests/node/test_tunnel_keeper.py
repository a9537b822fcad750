"""The agent keeps tunnels open, whatever its hub does, and hammers at none."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from structlog.testing import capture_logs

from tests.fakes.tunnelled_node import TunnelHub, tunnel_hub, tunnelled_node
from tests.server.hub.test_tunnel_route import Node, ask, until


class OddHub:
    """Answers each tunnel as it is told, and counts them."""

    def __init__(self) -> None:
        self.seen = 0
        self.status = 0

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.seen += 1
        if self.status:
            return web.Response(status=self.status)
        web_socket = web.WebSocketResponse()
        await web_socket.prepare(request)
        await web_socket.close()
        return web_socket


@contextlib.asynccontextmanager
async def odd_hub(hub: TunnelHub, *, status: int = 0) -> AsyncIterator[OddHub]:
    """Stand at the address of a hub that is away."""
    await hub.away()
    odd = OddHub()
    odd.status = status
    app = web.Application()
    app.router.add_get("/nodes/tunnel", odd.take)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", hub.port).start()
    try:
        yield odd
    finally:
        await runner.cleanup()


async def test_two_more_tunnels_than_slots_are_kept() -> None:
    async with tunnel_hub() as hub, tunnelled_node(hub, Node().app(), slots=4):
        await hub.until(idle=6)


async def test_tunnels_are_at_most_66() -> None:
    async with (
        tunnel_hub(most=100) as hub,
        tunnelled_node(hub, Node().app(), slots=1000),
    ):
        await hub.until(idle=66)


async def test_tunnels_are_closed_with_the_agent() -> None:
    async with tunnel_hub() as hub:
        async with tunnelled_node(hub, Node().app()):
            await hub.until(idle=3)
        await hub.until(idle=0)


async def test_a_hub_that_closes_what_is_idle_is_not_hammered() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with (
        tunnel_hub() as hub,
        odd_hub(hub) as odd,
        tunnelled_node(hub, Node().app(), slots=10),
    ):
        await until(lambda: odd.seen >= 2)
        await asyncio.sleep(1)

    # Twelve may open before the end of the first is known; then there is a pause.
    assert odd.seen <= 12 * (1 + (loop.time() - begun) / 0.8)


async def test_a_hub_that_refuses_is_asked_seldom_and_by_one_tunnel() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with capture_logs() as logs:
        async with (
            tunnel_hub() as hub,
            odd_hub(hub, status=401) as odd,
            tunnelled_node(hub, Node().app(), slots=10),
        ):
            await until(lambda: odd.seen >= 2)

    assert odd.seen <= 1 + (loop.time() - begun) / 0.8
    reasons = [entry["reason"] for entry in logs if entry["event"] == "tunnels.away"]
    assert reasons == [
        "the hub takes no tunnel (it does not know this node's key; join again with a"
        " new node token)"
    ]


async def test_a_hub_that_comes_back_has_all_tunnels_at_once() -> None:
    with capture_logs() as logs:
        async with tunnel_hub() as hub, tunnelled_node(hub, Node().app(), slots=10):
            await hub.until(idle=12)
            await hub.away()
            await hub.until(idle=0)
            await hub.back()
            await hub.until(idle=12)
            assert await ask(hub, "/echo") == b"hi"

    reasons = [entry["reason"] for entry in logs if entry["event"] == "tunnels.away"]
    assert reasons == ["the hub closed a tunnel that was idle"]


async def test_an_agent_that_ends_cuts_what_goes_on() -> None:
    node = Node()
    async with tunnel_hub() as hub:
        async with tunnelled_node(hub, node.app()):
            task = asyncio.ensure_future(ask(hub, "/wait"))
            await until(lambda: bool(node.seen))
        async with asyncio.timeout(20):
            await asyncio.wait({task})
        assert task.exception() is not None
    assert node.cancelled == 1
