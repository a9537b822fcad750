"""A stranger gets one sentence, and costs next to nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.node.agents import RunningAgent, post, running_agent

ELSEWHERE = "http://192.0.2.1:8000"


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[RunningAgent]:
    async with running_agent(tmp_path, SERVER_URL=ELSEWHERE) as agent:
        yield agent


async def test_only_the_hub_may_ask_even_on_this_machine(agent: RunningAgent) -> None:
    status, body = await post(f"{agent.url}/execute", b'{"model": "a"}')

    assert status == 403
    assert json.loads(body)["error"].startswith(
        "this agent takes work only from its hub, and 127.0.0.1 has none"
    )


async def test_the_program_of_a_health_check_may_ask_for_health(
    agent: RunningAgent,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")
