"""An agent whose port is refused serves its hub through tunnels that it opens."""

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from unittest import mock

import pytest
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.base.errors import InstanceLostError, StartupError, UpstreamError
from ollama_proxy.hub.tunnels import tunnel_upstream
from ollama_proxy.serving.shared_pulls import BufferedBody
from ollama_proxy.simulator.server import SIMULATOR, Manners, build_simulator
from ollama_proxy.simulator.state import Simulator
from ollama_proxy.upstream.client import Answer
from ollama_proxy.upstream.endpoint import Upstream
from ollama_proxy.upstream.request import PreparedRequest
from tests.fakes.ollama import real_ollama
from tests.fakes.tunnelled_node import TunnelHub, tunnel_hub
from tests.node.agents import JOINED, RunningAgent, running_agent
from tests.server.hub.test_tunnel_route import until

MODEL = os.environ.get("REAL_OLLAMA_MODEL", "")
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def simulator(aiohttp_server: AiohttpServer) -> tuple[str, Simulator]:
    app = build_simulator(Manners(rate=100.0, vram_share=1.0), models=["tiny"])
    server = await aiohttp_server(app, auto_decompress=False, shutdown_timeout=0.1)
    return str(server.make_url("")).rstrip("/"), app[SIMULATOR]


@pytest.fixture
async def hub() -> AsyncIterator[TunnelHub]:
    async with tunnel_hub() as hub:
        yield hub


def bind_out_of_reach(_port: int) -> socket.socket:
    """Listen where the beat's address does not lead, as behind NAT."""
    return socket.create_server(("127.0.0.9", 0))


@pytest.fixture
async def agent(
    hub: TunnelHub, simulator: tuple[str, Simulator], tmp_path: Path
) -> AsyncIterator[RunningAgent]:
    with mock.patch("ollama_proxy.node.agent.bind", bind_out_of_reach):
        async with running_agent(
            tmp_path,
            JOINED,
            key="key-of-gpu-1",
            SERVER_URL=f"http://127.0.0.1:{hub.port}",
            OLLAMA_BASE_URL=simulator[0],
            OLLAMA_NUM_PARALLEL="2",
            NODE_TUNNEL="true",
        ) as agent:
            await hub.until(idle=4)
            yield agent


async def ask(
    hub: TunnelHub, path: str, body: object, upstream: Upstream | None = None
) -> Answer:
    data = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    headers = CIMultiDict({"Content-Type": "application/json"})
    request = PreparedRequest(method, path, headers, BufferedBody(data))
    return await hub.client.ask(request, upstream or hub.upstream)


async def whole(answer: Answer) -> bytes:
    async with answer:
        return b"".join([chunk async for chunk in answer.chunks()])


async def test_its_port_is_refused(agent: RunningAgent, hub: TunnelHub) -> None:
    with pytest.raises(UpstreamError, match="Connect call failed"):
        await ask(hub, "/healthz", None, Upstream(agent.url))


async def test_all_of_ollama_is_served_through_tunnels(
    agent: RunningAgent, hub: TunnelHub
) -> None:
    listed = json.loads(await whole(await ask(hub, "/api/tags", None)))
    chat = await whole(
        await ask(hub, "/api/chat", {**CHAT, "options": {"num_predict": 5}})
    )
    job = {"model": "tiny", "prompt": "hi", "options": {"num_predict": 3}}
    executed = await whole(await ask(hub, "/execute", job))

    assert [one["name"] for one in listed["models"]] == ["tiny:latest"]
    assert len(chat.splitlines()) == 6
    assert json.loads(chat.splitlines()[-1])["done"] is True
    assert len(executed.splitlines()) == 4


async def test_the_hub_needs_its_token_there_too(
    agent: RunningAgent, hub: TunnelHub
) -> None:
    stranger = tunnel_upstream("gpu-1", "not-the-token")
    async with await ask(hub, "/api/tags", None, stranger) as answer:
        assert answer.status == 401


async def test_tokens_come_one_by_one_and_a_client_that_leaves_ends_them(
    agent: RunningAgent, hub: TunnelHub, simulator: tuple[str, Simulator]
) -> None:
    long = {**CHAT, "options": {"num_predict": 100_000}}
    async with await ask(hub, "/api/chat", long) as answer:
        chunks = answer.chunks()
        first = [await anext(chunks) for _ in range(3)]
    # The body was not read to its end, so the tunnel is cut.
    await until(lambda: simulator[1].counters.in_flight == 0)

    assert all(json.loads(one)["done"] is False for one in first)
    assert simulator[1].counters.cancelled == 1
    await hub.until(idle=4)


async def test_a_client_that_leaves_before_the_answer_ends_the_work(
    agent: RunningAgent, hub: TunnelHub, simulator: tuple[str, Simulator]
) -> None:
    long = {**CHAT, "stream": False, "options": {"num_predict": 9999}}
    task = asyncio.ensure_future(ask(hub, "/api/chat", long))
    await until(lambda: simulator[1].counters.working > 0)
    task.cancel()
    await asyncio.wait({task})

    await until(lambda: simulator[1].counters.in_flight == 0)
    assert simulator[1].counters.cancelled == 1


async def test_an_ending_agent_lets_a_stream_end_and_refuses_new_work(
    agent: RunningAgent, hub: TunnelHub
) -> None:
    some = {**CHAT, "options": {"num_predict": 50}}
    async with await ask(hub, "/api/chat", some) as answer:
        chunks = answer.chunks()
        await anext(chunks)
        agent.signals.put_nowait("SIGTERM")
        await until(lambda: bool(hub.beats) and hub.beats[-1]["agent"]["draining"])
        async with await ask(hub, "/api/chat", some) as refused:
            assert refused.status == 503
        rest = [chunk async for chunk in chunks]

    assert json.loads(rest[-1])["done"] is True
    async with asyncio.timeout(20):
        await agent.task
    await hub.until(idle=0)


async def test_a_hub_that_ends_in_mid_stream_ends_the_generation(
    agent: RunningAgent, hub: TunnelHub, simulator: tuple[str, Simulator]
) -> None:
    long = {**CHAT, "options": {"num_predict": 100_000}}
    async with await ask(hub, "/api/chat", long) as answer:
        chunks = answer.chunks()
        await anext(chunks)
        await hub.away()
        with pytest.raises(InstanceLostError):
            async for _ in chunks:
                pass

    await until(lambda: simulator[1].counters.in_flight == 0)
    await hub.back()
    await hub.until(idle=4)


async def test_tunnels_without_a_joining_are_refused_at_the_start(
    hub: TunnelHub, tmp_path: Path
) -> None:
    with pytest.raises(StartupError, match="ollama-proxy node-token"):
        async with running_agent(
            tmp_path, SERVER_URL=f"http://127.0.0.1:{hub.port}", NODE_TUNNEL="1"
        ):
            pass


@pytest.mark.real_ollama
@pytest.mark.skipif(shutil.which("ollama") is None, reason="no `ollama` on the PATH")
@pytest.mark.skipif(not MODEL, reason="REAL_OLLAMA_MODEL names no model")
async def test_a_real_ollama_answers_through_a_tunnel(
    hub: TunnelHub, tmp_path: Path
) -> None:
    async with (
        real_ollama() as url,
        running_agent(
            tmp_path,
            JOINED,
            key="key-of-gpu-1",
            SERVER_URL=f"http://127.0.0.1:{hub.port}",
            OLLAMA_BASE_URL=url,
            NODE_TUNNEL="true",
        ),
    ):
        await hub.until(idle=3)
        wanted = {**CHAT, "model": MODEL, "options": {"num_predict": 3}}
        lines = (await whole(await ask(hub, "/api/chat", wanted))).splitlines()

    assert json.loads(lines[-1])["done"] is True
