"""An agent begins with a token: it joins, beats with its key, and proves who it is."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.tasks import start_task
from ollama_proxy.hub.node_proof import NodeProver, url_of
from ollama_proxy.node.settings import NodeSettings, read_node_settings
from ollama_proxy.node.start import start_node
from tests.hub.rig import OWNER, JoinRig
from tests.hub.served import ServedHub, serving
from tests.ports import held_port


def settings_of(state: Path, url: str, **env: str) -> NodeSettings:
    return read_node_settings(
        {
            "SERVER_URL": url,
            "NODE_PORT": "0",
            "NODE_ID": "box",
            "HEARTBEAT_INTERVAL": "1",
            "OLLAMA_BASE_URL": f"http://127.0.0.1:{held_port()}",
            "OLLAMA_PROXY_STATE_DIR": str(state),
        }
        | env
    )


@contextlib.asynccontextmanager
async def started(
    settings: NodeSettings,
) -> AsyncIterator[tuple["asyncio.Queue[str]", "asyncio.Task[None]"]]:
    signals: asyncio.Queue[str] = asyncio.Queue()
    running = start_task(
        start_node(
            settings,
            clock=SystemClock(),
            rng=random.Random(1),
            next_signal=signals.get,
            announce=lambda _: None,
        )
    )
    try:
        yield signals, running
    finally:
        signals.put_nowait("SIGTERM")
        signals.put_nowait("SIGTERM")
        async with asyncio.timeout(20):
            await running


@pytest.fixture
def rig(tmp_path: Path) -> JoinRig:
    return JoinRig(tmp_path / "hub-state")


def token_of(rig: JoinRig, *, is_tls: bool = True) -> str:
    return rig.tokens.make(3600.0, rig.authority.fingerprint if is_tls else "", OWNER)[
        1
    ]


async def beaten(hub: ServedHub) -> dict[str, str]:
    async with asyncio.timeout(20):
        while not hub.beats:
            await asyncio.sleep(0.01)
    return hub.beats[-1]


@pytest.mark.parametrize("is_tls", [True, False])
async def test_it_joins_beats_with_its_key_and_proves_to_be_that_node(
    is_tls: bool, rig: JoinRig, tmp_path: Path
) -> None:
    async with serving(rig, is_tls=is_tls) as hub:
        token = token_of(rig, is_tls=is_tls)
        env = {"OLLAMA_PROXY_NODE_TOKEN": token, "NODE_TLS": str(is_tls).lower()}
        async with started(settings_of(tmp_path / "node", hub.url, **env)):
            beat = await beaten(hub)
            key = rig.keyring.of_node("box")
            assert key is not None
            assert key.is_used
            assert beat["scheme"] == ("https" if is_tls else "http")
            url = url_of("127.0.0.1", int(beat["port"]), is_tls=is_tls)
            link = rig.authority.link(key.id, is_tls=is_tls)
            async with aiohttp.ClientSession() as session:
                assert await NodeProver(session)([url], key, link) == url


async def test_its_next_start_needs_no_token(rig: JoinRig, tmp_path: Path) -> None:
    async with serving(rig) as hub:
        token = token_of(rig)
        state = tmp_path / "node"
        first = settings_of(state, hub.url, OLLAMA_PROXY_NODE_TOKEN=token)
        async with started(first):
            await beaten(hub)
        hub.beats.clear()
        async with started(settings_of(state, hub.url)):
            await beaten(hub)
    assert token not in repr(first)
    assert token[13:40] not in str(first.model_dump())


async def test_a_signal_ends_it_while_the_hub_is_away(
    rig: JoinRig, tmp_path: Path
) -> None:
    url = f"https://127.0.0.1:{held_port()}"
    settings = settings_of(tmp_path, url, OLLAMA_PROXY_NODE_TOKEN=token_of(rig))
    async with started(settings) as (signals, running):
        await asyncio.sleep(0.05)
        signals.put_nowait("SIGTERM")
        async with asyncio.timeout(20):
            await running


async def test_a_member_speaks_no_plain_http_with_its_hub_by_mistake(
    rig: JoinRig, tmp_path: Path
) -> None:
    async with serving(rig) as hub:
        settings = settings_of(tmp_path, hub.url, OLLAMA_PROXY_NODE_TOKEN=token_of(rig))
        async with started(settings):
            await beaten(hub)
    plain = settings_of(tmp_path, hub.url.replace("https", "http"))
    with pytest.raises(StartupError, match="--no-tls"):
        async with started(plain) as (_, running):
            await asyncio.wait({running})
