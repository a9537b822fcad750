"""Run an agent in this process, on real sockets."""

import asyncio
import contextlib
import random
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import aiohttp

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.tasks import start_task
from ollama_proxy.core.nodes.node_keys import digest_of
from ollama_proxy.node.agent import run_node
from ollama_proxy.node.hub_access import HubAccess
from ollama_proxy.node.settings import read_node_settings

HUB_TOKEN = "hub-token-of-a-test"
JOINED = HubAccess(digest_of(HUB_TOKEN), b"secret of a test")


@dataclass(slots=True)
class RunningAgent:
    """An agent on ``port``; ``end`` sends it a signal and waits for its end."""

    task: "asyncio.Task[None]"
    signals: "asyncio.Queue[str]"
    lines: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        found = re.search(r"on port (\d+)", self.lines[0])
        assert found is not None
        return int(found[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def end(self) -> None:
        self.signals.put_nowait("SIGTERM")
        await self.task


@contextlib.asynccontextmanager
async def running_agent(
    state: Path,
    access: HubAccess | None = None,
    context: ssl.SSLContext | None = None,
    key: str = "",
    **env: str,
) -> AsyncIterator[RunningAgent]:
    """Run an agent with these settings; by default with beats every second.

    ``access``: it has joined a hub that has `HUB_TOKEN`. ``context``: with TLS.
    ``key``: by which the hub knows it.
    """
    announced = asyncio.Event()
    agent: RunningAgent

    def announce(line: str) -> None:
        agent.lines.append(line)
        announced.set()

    signals: asyncio.Queue[str] = asyncio.Queue()
    settings = read_node_settings(
        {
            "NODE_PORT": "0",
            "NODE_ID": "gpu-1",
            "HEARTBEAT_INTERVAL": "1",
            "OLLAMA_PROXY_STATE_DIR": str(state),
        }
        | env
    )
    coro = run_node(
        settings,
        clock=SystemClock(),
        rng=random.Random(1),
        next_signal=signals.get,
        announce=announce,
        access=access,
        context=context,
        open_session=lambda: aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {}
        ),
    )
    agent = RunningAgent(start_task(coro), signals)
    try:
        async with asyncio.timeout(20):
            while not announced.is_set() and not agent.task.done():
                await asyncio.sleep(0.01)
        yield agent
    finally:
        signals.put_nowait("SIGTERM")
        signals.put_nowait("SIGTERM")
        async with asyncio.timeout(20):
            await agent.task


async def post(url: str, data: bytes | BytesIO, **headers: str) -> tuple[int, bytes]:
    """Post bytes; return status and body."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=data, headers=headers) as answer,
    ):
        return answer.status, await answer.read()
