"""A house of real agents, processes of their own, each before a simulator."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from ollama_proxy.simulator.server import SIMULATOR, Counters, Manners, build_simulator
from tests.black_box import ProxyProcess, begin_forked, forked_proxy
from tests.forked_cli import ForkedProcess

MODEL = "llama3.2"
BEATS = {"HEARTBEAT_INTERVAL": "1", "OLLAMA_PROXY_HUB_LISTEN": "off"}


@dataclass(slots=True)
class Agent:
    """A running ``ollama-proxy node``; its output goes to ``log``."""

    process: ForkedProcess
    log: Path

    @property
    def port(self) -> int:
        found = re.search(r"on port (\d+)", self.log.read_text())
        return int(found[1]) if found else 0


@dataclass(slots=True)
class Ollama:
    """A simulator on a real socket; ``counters`` of what it was asked."""

    url: str
    counters: Counters
    answering: dict[int, web.Request]

    def break_off(self) -> None:
        """Cut every answer that is going on."""
        for request in self.answering.values():
            if request.transport is not None:
                request.transport.abort()

    @property
    def jobs(self) -> int:
        return self.counters.requests.get("/api/generate", 0)


@contextlib.contextmanager
def hub_process(folder: Path, **env: str) -> Iterator[ProxyProcess]:
    """Run the proxy as a hub, which has its nodes beat every second."""
    with forked_proxy(folder / "hub", OLLAMA_PROXY_HUB="true", **BEATS | env) as hub:
        yield hub


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Serve on a port of the system's choice; yield the URL."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def ollama(rate: float, *models: str) -> AsyncIterator[Ollama]:
    """Run a simulator of so many tokens a second."""
    app = build_simulator(Manners(rate=rate, load_s=0.0), models=models or [MODEL])
    answering: dict[int, web.Request] = {}

    @web.middleware
    async def noted(request: web.Request, handler: Handler) -> web.StreamResponse:
        answering[id(request)] = request
        try:
            return await handler(request)
        finally:
            del answering[id(request)]

    app.middlewares.insert(0, noted)
    async with serving(app) as url:
        yield Ollama(url, app[SIMULATOR].counters, answering)


@contextlib.asynccontextmanager
async def agent(
    folder: Path, hub: str, node_id: str, url: str, **env: str
) -> AsyncIterator[Agent]:
    """Run an agent of the hub at this URL before an Ollama, from its first line on."""
    log = folder.with_suffix(".log")
    settings = {
        "SERVER_URL": hub,
        "NODE_ID": node_id,
        "NODE_PORT": "0",
        "OLLAMA_BASE_URL": url,
        "OLLAMA_PROXY_STATE_DIR": str(folder),
    }
    with log.open("w") as out:
        made = Agent(begin_forked(("node",), settings | env, out), log)
    try:
        await until(lambda: made.port > 0)
        yield made
    finally:
        made.process.kill()
        await asyncio.to_thread(made.process.wait, 60.0)


async def nodes_of(hub: ProxyProcess) -> dict[str, dict[str, Any]]:
    """Return the nodes that a hub lists, by name."""
    listed: Any = await asyncio.to_thread(hub.get, "/nodes")
    return {node["node_id"]: node for node in listed}


async def until_listed(hub: ProxyProcess, *node_ids: str) -> None:
    """Wait until a hub knows nodes with models."""
    async with asyncio.timeout(60):
        while True:
            nodes = await nodes_of(hub)
            if all(nodes.get(node_id, {}).get("models") for node_id in node_ids):
                return
            await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait until something is true, or fail."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)
