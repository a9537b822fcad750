"""A whole hub serves the models of a machine behind NAT, through its tunnels."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from unittest import mock

import aiohttp
import pytest
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.backends.hub import HubBackend
from ollama_proxy.base.retry import GrowingPause
from ollama_proxy.composition.hub import Hub
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.node.joining import Joiner
from ollama_proxy.node.membership import Membership
from ollama_proxy.simulator.server import SIMULATOR, Manners, build_simulator
from ollama_proxy.simulator.state import Simulator
from tests.node.agents import RunningAgent, running_agent
from tests.node.test_behind_nat import bind_out_of_reach
from tests.proxy import RunningProxy, running_proxy

OWNER = Caller("127.0.0.1", is_admin=True)
UPGRADE = (
    b"GET /nodes/tunnel HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture
async def simulator(aiohttp_server: AiohttpServer) -> tuple[str, Simulator]:
    app = build_simulator(Manners(rate=100.0, vram_share=1.0), models=["tiny"])
    server = await aiohttp_server(app, auto_decompress=False, shutdown_timeout=0.1)
    return str(server.make_url("")).rstrip("/"), app[SIMULATOR]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[RunningProxy]:
    async with running_hub(tmp_path) as hub:
        yield hub


def running_hub(
    folder: Path, drain_timeout_s: float = 0.2
) -> AbstractAsyncContextManager[RunningProxy]:
    return running_proxy(
        folder / "hub",
        backend=HubBackend(Labels()),
        drain_timeout_s=drain_timeout_s,
        OLLAMA_PROXY_HUB="true",
        OLLAMA_PROXY_HOLD="60",
    )


async def joined(hub: RunningProxy, folder: Path, node_id: str = "gpu-1") -> Membership:
    """Join without TLS, as on a network of one's own."""
    pause = GrowingPause(0.01, 0.02)
    joiner = Joiner(hub.url, folder, node_id, is_tls=False, pause=pause)
    found = await joiner.membership(await hub.node_token())
    assert found is not None
    return found


@contextlib.asynccontextmanager
async def tunnelled_agent(
    hub: RunningProxy, ollama: str, folder: Path, node_id: str
) -> AsyncIterator[RunningAgent]:
    """Run an agent that has joined, and whose port is out of reach."""
    member = await joined(hub, folder, node_id)
    with mock.patch("ollama_proxy.node.agent.bind", bind_out_of_reach):
        async with running_agent(
            folder,
            member.access,
            key=member.key,
            NODE_ID=node_id,
            SERVER_URL=hub.url,
            OLLAMA_BASE_URL=ollama,
            OLLAMA_NUM_PARALLEL="2",
            NODE_TUNNEL="true",
        ) as agent:
            tunnels = hub_of(hub).tunnels
            await hub.until(lambda: tunnels.count(node_id) == (4, 4))
            yield agent


def hub_of(proxy: RunningProxy) -> Hub:
    assert proxy.parts.hub is not None
    return proxy.parts.hub


@pytest.fixture
async def agent(
    hub: RunningProxy, simulator: tuple[str, Simulator], tmp_path: Path
) -> AsyncIterator[RunningAgent]:
    folder = tmp_path / "node"
    async with tunnelled_agent(hub, simulator[0], folder, "gpu-1") as agent:
        await until_served(hub)
        yield agent


async def until_served(hub: RunningProxy) -> None:
    async with asyncio.timeout(30):
        while True:
            async with hub.session.get(f"{hub.url}/api/tags") as answer:
                if (await answer.json()).get("models"):
                    return
            await asyncio.sleep(0.05)


def chat(most: int) -> dict[str, object]:
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hi"}],
        "options": {"num_predict": most},
    }


async def ask(hub: RunningProxy) -> int:
    async with hub.session.post(f"{hub.url}/api/chat", json=chat(20)) as answer:
        await answer.read()
        return answer.status


async def test_a_chat_is_answered_through_a_tunnel(
    hub: RunningProxy, agent: RunningAgent
) -> None:
    async with hub.session.post(f"{hub.url}/api/chat", json=chat(5)) as answer:
        lines = (await answer.read()).splitlines()

    assert answer.status == 200
    assert len(lines) == 6
    assert json.loads(lines[-1])["done"] is True


HI = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models", None),
        ("POST", "/api/show", {"model": "tiny"}),
        ("POST", "/api/embed", {"model": "tiny", "input": "hi"}),
        ("POST", "/v1/chat/completions", {**HI, "max_tokens": 3}),
        ("POST", "/v1/messages", {**HI, "max_tokens": 3}),
        ("POST", "/jobs", {"model": "tiny", "prompt": "hi"}),
        ("POST", "/api/pull", {"model": "llama3.2"}),
        ("POST", "/api/copy", {"source": "tiny", "destination": "other"}),
        ("DELETE", "/api/delete", {"model": "tiny"}),
    ],
)
async def test_every_kind_of_request_goes_through_tunnels(
    hub: RunningProxy, agent: RunningAgent, method: str, path: str, body: object
) -> None:
    async with hub.session.request(method, f"{hub.url}{path}", json=body) as answer:
        await answer.read()

    assert answer.status == 200


async def test_the_list_of_nodes_says_how_it_is_reached(
    hub: RunningProxy, agent: RunningAgent
) -> None:
    async with hub.session.get(f"{hub.url}/nodes/gpu-1") as answer:
        node = await answer.json()

    assert (node["url"], node["serves_all"], node["problem"]) == ("tunnel", True, "")
    assert node["tunnels"] == {"open": 4, "idle": 4}


async def test_a_client_that_leaves_ends_the_generation(
    hub: RunningProxy, agent: RunningAgent, simulator: tuple[str, Simulator]
) -> None:
    async with hub.session.post(f"{hub.url}/api/chat", json=chat(100_000)) as answer:
        await answer.content.readline()
        answer.close()

    await hub.until(lambda: simulator[1].counters.in_flight == 0)
    assert simulator[1].counters.cancelled == 1


async def test_a_node_that_is_removed_loses_its_tunnels(
    hub: RunningProxy, agent: RunningAgent
) -> None:
    tunnels, keyring = hub_of(hub).tunnels, hub_of(hub).keys
    key = keyring.of_node("gpu-1")
    assert key is not None
    keyring.remove(key, hub_of(hub).audit.line(OWNER, "node.removed", "gpu-1"))

    await hub.until(lambda: tunnels.count("gpu-1") == (0, 0))


async def test_a_hub_that_ends_does_not_wait_for_idle_tunnels(
    simulator: tuple[str, Simulator], tmp_path: Path
) -> None:
    async with running_hub(tmp_path, 20.0) as hub:
        folder = tmp_path / "node"
        async with tunnelled_agent(hub, simulator[0], folder, "gpu-1"):
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await hub.runner.cleanup()
            assert loop.time() - begun < 10


async def test_a_node_without_idle_tunnels_leaves_its_requests_to_the_next(
    hub: RunningProxy,
    agent: RunningAgent,
    simulator: tuple[str, Simulator],
    tmp_path: Path,
) -> None:
    tunnels, folder = hub_of(hub).tunnels, tmp_path / "other"
    tunnels.wait_s = 0.05
    async with tunnelled_agent(hub, simulator[0], folder, "gpu-2"):
        registry = hub_of(hub).registry
        await hub.until(lambda: registry.shown("gpu-2") is not None)
        stuck = [tunnels.take_idle("gpu-2") for _ in range(4)]
        statuses = await asyncio.gather(*(ask(hub) for _ in range(8)))

        assert statuses == [200] * 8
        assert (registry.shown("gpu-2") or {})["failure_count"] > 0
        assert None not in stuck
        assert (registry.shown("gpu-1") or {})["failure_count"] == 0


async def test_what_is_no_node_gets_no_tunnel_and_its_connection_ends(
    hub: RunningProxy,
) -> None:
    raw = await hub.raw(UPGRADE)

    assert raw.startswith(b"HTTP/1.1 401 ")
    assert raw.count(b"HTTP/1.1 ") == 1


async def test_a_request_behind_that_of_a_tunnel_is_not_served(
    hub: RunningProxy,
) -> None:
    behind = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"

    answered = b""
    with contextlib.suppress(ConnectionResetError):
        answered = await hub.raw(UPGRADE + behind)
    assert b"200 OK" not in answered


async def test_a_proxy_that_is_no_hub_has_no_tunnels(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_BACKEND="local") as proxy:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await proxy.session.ws_connect(f"{proxy.url}/nodes/tunnel")
        assert caught.value.status == 404
