"""A hub has its nodes pull what it wants: real agents before simulators."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.backends.hub import HubBackend
from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.core.nodes.wanted import RESERVE, UNKNOWN_SIZE
from ollama_proxy.simulator.server import Manners, build_simulator
from tests.node.agents import running_agent
from tests.proxy import RunningProxy, running_proxy


@contextlib.asynccontextmanager
async def agent(
    server: AiohttpServer, folder: Path, hub: RunningProxy, name: str, model: str
) -> AsyncIterator[None]:
    """Run an agent before a simulator that has one model."""
    app = build_simulator(Manners(rate=100.0, pull_s=2.5), models=[model])
    simulator = await server(app, auto_decompress=False, shutdown_timeout=0.1)
    async with running_agent(
        folder / name,
        SERVER_URL=hub.hub_url,
        NODE_ID=name,
        OLLAMA_BASE_URL=str(simulator.make_url("")).rstrip("/"),
        OLLAMA_MODELS=str(folder),
    ):
        yield


async def nodes(hub: RunningProxy) -> dict[str, Any]:
    async with hub.session.get(f"{hub.hub_url}/nodes") as answer:
        return {node["node_id"]: node for node in await answer.json()}


async def test_nodes_pull_what_others_have_with_progress(
    tmp_path: Path, aiohttp_server: AiohttpServer
) -> None:
    if shutil.disk_usage(tmp_path).free < 2 * (RESERVE + UNKNOWN_SIZE):
        pytest.skip("there is too little room on this machine for a node to pull")
    seen = set()
    async with (
        running_proxy(
            tmp_path / "hub",
            backends={"house": HubBackend(Labels())},
            OLLAMA_PROXY_HUB="true",
            OLLAMA_PROXY_HUB_WANTED_MODELS="all",
            HEARTBEAT_INTERVAL="1",
        ) as hub,
        agent(aiohttp_server, tmp_path, hub, "one", "tiny"),
        agent(aiohttp_server, tmp_path, hub, "two", "big"),
    ):
        async with asyncio.timeout(60):
            while True:
                known = await nodes(hub)
                seen |= {
                    (name, node["pulling"]["name"])
                    for name, node in known.items()
                    if node["pulling"]
                }
                models = {name: sorted(node["models"]) for name, node in known.items()}
                if list(models.values()) == [["big:latest", "tiny:latest"]] * 2:
                    break
                await asyncio.sleep(0.1)

    assert seen == {("one", "big:latest"), ("two", "tiny:latest")}
