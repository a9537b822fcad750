"""Requests reach a node that nobody can call, on real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.nodes.hub_routes import TUNNEL
from ollama_proxy.serving.shared_pulls import BufferedBody
from ollama_proxy.upstream.client import Answer
from ollama_proxy.upstream.request import PreparedRequest
from tests.fakes.tunnelled_node import (
    TunnelHub,
    impatient_proxy,
    tunnel_hub,
    tunnelled_node,
)
from tests.node.agents import HUB_TOKEN
from tests.upstream.rig import UnendingBody, whole


class Node:
    """The server of a node: what it was asked, and what has become of it."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.cancelled = 0
        self.read = 0
        self.written = 0
        self.may_read = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/echo", self.echo)
        app.router.add_post("/tokens", self.tokens)
        app.router.add_post("/wait", self.wait)
        app.router.add_post("/flood", self.flood)
        app.router.add_post("/upload", self.upload)
        app.router.add_post("/break", self.break_off)
        return app

    async def echo(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        return web.Response(body=await request.read())

    async def tokens(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            for number in range(100_000):
                await answer.write(b'{"response":"%d"}\n' % number)
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return answer

    async def wait(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return web.Response()

    async def flood(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(64):
            await answer.write(bytes(1 << 20))
            self.written += 1 << 20
        return answer

    async def upload(self, request: web.Request) -> web.Response:
        await self.may_read.wait()
        async for part in request.content.iter_any():
            self.read += len(part)
        return web.Response(text=str(self.read))

    async def break_off(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"some")
        assert request.transport is not None
        request.transport.abort()
        return answer


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def hub(node: Node) -> AsyncIterator[TunnelHub]:
    async with tunnel_hub() as hub, tunnelled_node(hub, node.app()):
        await hub.until(idle=3)
        yield hub


async def begin(hub: TunnelHub, path: str, body: Any = b"hi") -> Answer:
    given = body if hasattr(body, "payload") else BufferedBody(body)
    request = PreparedRequest("POST", path, CIMultiDict(), given)
    return await hub.client.ask(request, hub.upstream)


async def ask(hub: TunnelHub, path: str, body: Any = b"hi") -> bytes:
    return await whole(await begin(hub, path, body))


async def cancelled(task: "asyncio.Future[bytes]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.01)


class LongBody(UnendingBody):
    """Sends 64 parts of 1 MiB, and counts them."""

    sent = 0

    async def _parts(self) -> AsyncIterator[bytes]:
        for _ in range(64):
            self.sent += 1
            yield bytes(1 << 20)


async def test_a_request_is_answered_through_a_tunnel(
    hub: TunnelHub, node: Node
) -> None:
    assert await ask(hub, "/echo", b"hello") == b"hello"
    assert node.seen[0].headers["Authorization"] == f"Bearer {HUB_TOKEN}"
    assert node.seen[0].remote == "127.0.0.1"


async def test_a_tunnel_carries_one_request_and_is_replaced(hub: TunnelHub) -> None:
    before = hub.opened
    for _ in range(5):
        assert await ask(hub, "/echo") == b"hi"

    await hub.until(idle=3)
    assert hub.opened == before + 5


async def test_more_requests_than_idle_tunnels_wait_for_new_ones(
    hub: TunnelHub,
) -> None:
    bodies = [b"%d" % number for number in range(40)]

    assert await asyncio.gather(*(ask(hub, "/echo", one) for one in bodies)) == bodies
    await hub.until(idle=3)


async def test_tokens_come_as_they_are_written(hub: TunnelHub, node: Node) -> None:
    async with await begin(hub, "/tokens") as answer:
        chunks = answer.chunks()
        first = [await anext(chunks) for _ in range(3)]
        await hub.until(idle=3, of=4)
        await chunks.aclose()  # type: ignore[attr-defined] # a generator

    assert first[0].startswith(b'{"response":"0"}')
    await until(lambda: node.cancelled == 1)
    await hub.until(idle=3)


async def test_a_client_that_leaves_before_the_answer_ends_the_work(
    hub: TunnelHub, node: Node
) -> None:
    task = asyncio.ensure_future(ask(hub, "/wait"))
    await until(lambda: bool(node.seen))
    await cancelled(task)

    await until(lambda: node.cancelled == 1)
    await hub.until(idle=3)


async def test_an_answer_that_breaks_off_is_known_as_such(hub: TunnelHub) -> None:
    with pytest.raises(InstanceLostError):
        await ask(hub, "/break")
    assert await ask(hub, "/echo") == b"hi"


async def test_a_long_upload_is_held_while_the_node_does_not_read(
    hub: TunnelHub, node: Node
) -> None:
    body = LongBody()
    task = asyncio.ensure_future(ask(hub, "/upload", body))
    await until(lambda: body.sent > 0)
    await asyncio.sleep(0.5)
    held = body.sent
    node.may_read.set()

    assert await task == b"%d" % (64 << 20)
    assert held < 32


async def test_a_slow_reader_holds_the_node_back(hub: TunnelHub, node: Node) -> None:
    async with await begin(hub, "/flood") as answer:
        await asyncio.sleep(0.5)
        held = node.written
        read = 0
        async for chunk in answer.chunks():
            read += len(chunk)

    assert read == 64 << 20
    assert held < 32 << 20


async def test_a_node_without_idle_tunnels_is_not_reached() -> None:
    async with tunnel_hub(wait_s=0.1) as hub:
        with pytest.raises(UpstreamError, match=r"no idle tunnel for 0\.1 s") as caught:
            await ask(hub, "/echo")

    assert not caught.value.arrived


async def test_a_request_waits_for_the_first_tunnel(node: Node) -> None:
    async with tunnel_hub() as hub:
        task = asyncio.ensure_future(ask(hub, "/echo"))
        await asyncio.sleep(0.05)
        async with tunnelled_node(hub, node.app()):
            assert await task == b"hi"


async def test_a_hub_that_restarts_has_tunnels_again(
    hub: TunnelHub, node: Node
) -> None:
    await hub.away()
    await hub.until(idle=0)
    await hub.back()

    await hub.until(idle=3)
    assert await ask(hub, "/echo") == b"hi"
    assert hub.changed == ["gpu-1"] * 3


async def test_a_proxy_that_closes_what_is_silent_sees_pings(node: Node) -> None:
    async with (
        tunnel_hub(look_s=0.1) as hub,
        impatient_proxy(hub.port, silence_s=2.5) as port,
        tunnelled_node(hub, node.app(), url=f"http://127.0.0.1:{port}{TUNNEL}"),
    ):
        await hub.until(idle=3)
        await asyncio.sleep(3.5)

        assert hub.opened == 3
        assert await ask(hub, "/echo") == b"hi"


async def test_a_proxy_that_closes_them_nevertheless_is_survived(node: Node) -> None:
    async with (
        tunnel_hub() as hub,
        impatient_proxy(hub.port, silence_s=0.2) as port,
        tunnelled_node(hub, node.app(), url=f"http://127.0.0.1:{port}{TUNNEL}"),
    ):
        await until(lambda: hub.opened >= 6)

        assert await ask(hub, "/echo") == b"hi"


async def test_a_hub_that_ends_cuts_what_goes_on(hub: TunnelHub, node: Node) -> None:
    async with await begin(hub, "/tokens") as answer:
        chunks = answer.chunks()
        await anext(chunks)
        await hub.away()
        with pytest.raises(InstanceLostError):
            async for _ in chunks:
                pass

    await until(lambda: node.cancelled == 1)


async def test_a_node_that_is_dropped_loses_its_tunnels(
    hub: TunnelHub, node: Node
) -> None:
    async with await begin(hub, "/tokens") as answer:
        chunks = answer.chunks()
        await anext(chunks)
        hub.tunnels.drop("gpu-1")
        with pytest.raises(InstanceLostError):
            async for _ in chunks:
                pass


@pytest.mark.parametrize("sent", [{}, {"Authorization": "Bearer of-nobody"}])
async def test_a_tunnel_without_a_key_of_a_node_is_refused(
    sent: dict[str, str],
) -> None:
    async with (
        tunnel_hub() as hub,
        aiohttp.ClientSession() as session,
        session.get(hub.url, headers=sent) as answer,
    ):
        assert answer.status == 401
        assert "no such key of a node" in (await answer.json())["error"]


async def test_a_key_opens_tunnels_of_its_own_node_alone(node: Node) -> None:
    async with (
        tunnel_hub(wait_s=0.1) as hub,
        tunnelled_node(hub, node.app(), key="key-of-gpu-2"),
    ):
        await until(lambda: hub.tunnels.has("gpu-2"))
        with pytest.raises(UpstreamError):
            await ask(hub, "/echo")


async def test_a_node_has_no_more_tunnels_than_its_most(node: Node) -> None:
    headers = {"Authorization": "Bearer key-of-gpu-1"}
    async with (
        tunnel_hub(most=2) as hub,
        tunnelled_node(hub, node.app(), slots=4),
        aiohttp.ClientSession() as session,
    ):
        await hub.until(idle=2)
        async with session.get(hub.url, headers=headers) as answer:
            assert answer.status == 503
            assert "has 2 tunnels, its most" in (await answer.json())["error"]


async def test_a_request_that_is_no_web_socket_takes_no_place() -> None:
    headers = {"Authorization": "Bearer key-of-gpu-1"}
    async with tunnel_hub() as hub, aiohttp.ClientSession() as session:
        async with session.get(hub.url, headers=headers) as answer:
            assert answer.status == 400
        assert hub.tunnels.count("gpu-1") == (0, 0)
