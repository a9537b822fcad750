"""A node that has joined speaks TLS on its port, and says so."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.cli.healthcheck import ask
from ollama_proxy.simulator.server import SIMULATOR, Manners, build_simulator
from ollama_proxy.simulator.state import Simulator
from tests.certificates import PrivateCa, private_ca
from tests.fakes.old_hub import old_hub
from tests.node.agents import HUB_TOKEN, JOINED, RunningAgent, running_agent

FIELDS = {"Authorization": f"Bearer {HUB_TOKEN}"}


@pytest.fixture
def ca(tmp_path: Path) -> PrivateCa:
    return private_ca(tmp_path / "tls")


@pytest.fixture
async def simulator(aiohttp_server: AiohttpServer) -> tuple[str, Simulator]:
    app = build_simulator(Manners(rate=100.0, vram_share=1.0), models=["tiny"])
    server = await aiohttp_server(app, auto_decompress=False, shutdown_timeout=0.1)
    return str(server.make_url("")).rstrip("/"), app[SIMULATOR]


@pytest.fixture
async def agent(
    ca: PrivateCa, simulator: tuple[str, Simulator], tmp_path: Path
) -> AsyncIterator[RunningAgent]:
    async with (
        old_hub() as hub,
        running_agent(
            tmp_path,
            access=JOINED,
            context=ca.serving(),
            SERVER_URL=hub.url,
            OLLAMA_BASE_URL=simulator[0],
        ) as agent,
    ):
        assert (await hub.until())["agent"]["scheme"] == "https"
        yield agent


async def test_a_chat_streams_over_tls(agent: RunningAgent, ca: PrivateCa) -> None:
    job = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    url = f"https://127.0.0.1:{agent.port}/api/chat"
    async with (
        aiohttp.ClientSession(headers=FIELDS) as session,
        session.post(url, json=job, ssl=ca.trusting()) as answer,
    ):
        lines = [json.loads(line) async for line in answer.content]

    assert lines[-1]["done"] is True
    assert agent.lines[0].endswith("from the hub alone, by its token")


async def test_a_health_check_asks_over_tls(
    agent: RunningAgent, tmp_path: Path
) -> None:
    env = {"OLLAMA_PROXY_STATE_DIR": str(tmp_path)}
    url = await asyncio.to_thread(ask, env, None, now=time.perf_counter)

    assert url == f"https://127.0.0.1:{agent.port}"


async def test_plain_http_is_refused_in_words(agent: RunningAgent) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    writer.write(b"GET /api/tags HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    answer = await reader.read()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"https://" in answer


async def test_a_hub_that_leaves_ends_the_generation(
    agent: RunningAgent, simulator: tuple[str, Simulator], ca: PrivateCa
) -> None:
    async with aiohttp.ClientSession(headers=FIELDS) as session:
        job = {"model": "tiny", "prompt": "hi", "options": {"num_predict": 100_000}}
        url = f"https://127.0.0.1:{agent.port}/api/generate"
        answer = await session.post(url, json=job, ssl=ca.trusting())
        await answer.content.readline()
        answer.close()

    async with asyncio.timeout(20):
        while simulator[1].counters.in_flight:
            await asyncio.sleep(0.01)
    assert simulator[1].counters.cancelled == 1
