"""A launch that can't be written to disk does not begin; its request fails."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import Record, State
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy
from tests.slots import slot_of

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def fill_disk(proxy: RunningProxy) -> None:
    proxy.store._db.execute("PRAGMA query_only = ON")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/chat", {}),  # as plain as the fast server takes them
        ("/api/chat", {"Prefer": "wait=2"}),
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"X-Odd": "1", "Cookie": "a=b"}),
        ("/-/wake", {}),
    ],
)
async def test_it_is_a_500_on_each_way_in_and_nothing_is_launched(
    tmp_path: Path, path: str, headers: Mapping[str, str]
) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        fill_disk(proxy)
        async with proxy.session.post(
            proxy.url + path, json=CHAT, headers=headers
        ) as reply:
            said = await reply.text()

        assert reply.status == 500
        assert "the state can't be written" in said
        assert proxy.state == "cold"
        assert backend.launches == 0


@pytest.mark.parametrize("by_fast_path", [True, False])
async def test_a_503_is_sent_once_the_launch_is_on_disk(
    tmp_path: Path, *, by_fast_path: bool
) -> None:
    async with running_proxy(
        tmp_path,
        backend=InProcessBackend(),
        OLLAMA_PROXY_FAST_PATH=str(by_fast_path),
    ) as proxy:
        async with proxy.session.post(f"{proxy.url}/api/chat", json=CHAT) as reply:
            assert reply.status == 503
            query = "SELECT launch_id FROM instance WHERE slot = ?"
            path = tmp_path / "state.sqlite3"
            with closing(sqlite3.connect(path)) as db:
                [launch_id] = db.execute(query, (slot_of("local"),)).fetchone()

        assert launch_id is not None
        assert launch_id == proxy.parts.pool.controllers[0].record.launch_id


async def test_a_server_of_others_is_not_joined_and_who_asks_hears_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreError("the state can't be written: disk full")

    backend = InProcessBackend()
    backend.traits = replace(
        backend.traits, child_process=False, externally_managed=True
    )
    monkeypatch.setattr(SqliteStore, "reserve", full)
    async with (
        running_proxy(tmp_path, backend=backend) as proxy,
        proxy.session.post(f"{proxy.url}/api/chat", json=CHAT) as reply,
    ):
        said = await reply.text()

        assert reply.status == 500
        assert "the state can't be written" in said
        assert backend.launches == 0


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let a reservation take until this is set, as over a slow network."""
    gate, reserve = asyncio.Event(), SqliteStore.reserve

    async def slow(
        store: SqliteStore, slot: str, launch: Record, line: Transition
    ) -> None:
        await gate.wait()
        await reserve(store, slot, launch, line)

    monkeypatch.setattr(SqliteStore, "reserve", slow)
    return gate


@asynccontextmanager
async def asked_while_writing(
    tmp_path: Path, fast: str
) -> AsyncIterator[
    tuple[RunningProxy, InProcessBackend, asyncio.Task[aiohttp.ClientResponse]]
]:
    """Yield a proxy that is writing a launch to disk, and the request for it."""
    backend = InProcessBackend()
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_FAST_PATH=fast
    ) as proxy:
        controller = proxy.parts.pool.controllers[0]
        asked = asyncio.ensure_future(
            proxy.session.post(f"{proxy.url}/api/chat", json=CHAT)
        )
        await proxy.until(lambda: controller.is_reserving)
        yield proxy, backend, asked


@pytest.mark.parametrize("fast", ["true", "false"])
async def test_a_stop_while_it_is_written_is_a_503_and_nothing_is_launched(
    tmp_path: Path, written: asyncio.Event, fast: str
) -> None:
    async with asked_while_writing(tmp_path, fast) as (proxy, backend, asked):
        controller = proxy.parts.pool.controllers[0]
        proxy.parts.pool.stop()
        written.set()
        async with await asked as reply:
            said = await reply.text()
        await proxy.until(lambda: not controller.is_reserving)

        assert reply.status == 503, said
        assert proxy.state == "cold"
        assert backend.launches == 0


@pytest.mark.parametrize("fast", ["true", "false"])
async def test_a_stop_before_who_asked_hears_of_the_launch_is_not_undone_by_that(
    tmp_path: Path, fast: str
) -> None:
    async with running_proxy(
        tmp_path, backend=InProcessBackend(), OLLAMA_PROXY_FAST_PATH=fast
    ) as proxy:
        pool, begun = proxy.parts.pool, []

        def stop_at_once(_before: Record, after: Record) -> None:
            if after.state is State.STARTING:
                begun.append(after.launch_id)
                asyncio.get_running_loop().call_soon(pool.stop)

        pool.controllers[0].subscribe(stop_at_once)
        async with proxy.session.post(f"{proxy.url}/api/chat", json=CHAT) as reply:
            assert reply.status == 503
        await proxy.until(lambda: proxy.state == "cold")
        await asyncio.sleep(0.1)

        assert len(begun) == 1
        assert proxy.state == "cold"


@pytest.mark.parametrize("fast", ["true", "false"])
async def test_a_client_that_leaves_while_it_is_written_is_counted_as_gone(
    tmp_path: Path, written: asyncio.Event, fast: str
) -> None:
    async with asked_while_writing(tmp_path, fast) as (proxy, backend, asked):
        asked.cancel()
        async with asyncio.timeout(30.0):
            while await gone(proxy) < 1.0:
                await asyncio.sleep(0.02)
        assert backend.launches == 0
        written.set()
        await proxy.until(lambda: backend.launches == 1)


async def gone(proxy: RunningProxy) -> float:
    """Return how many clients have left before their answer, as metrics count."""
    async with proxy.session.get(f"{proxy.url}/metrics") as told:
        rendered = await told.text()
    line = r'^ollama_proxy_requests_total\{[^}]*outcome="abandoned"[^}]*\} (\S+)$'
    return sum(float(number) for number in re.findall(line, rendered, re.M))
