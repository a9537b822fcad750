"""Beats on real sockets: bounded, and refused in a sentence."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from unittest import mock

import aiohttp
import pytest
from aiohttp import web

from ollama_proxy.core.access.facts import HeaderView
from ollama_proxy.core.nodes.beat import LARGEST_BEAT, BeatError
from ollama_proxy.hub.beat_door import BeatDoor
from ollama_proxy.hub.ports import Sender
from ollama_proxy.server.hub import beats
from ollama_proxy.server.hub.beats import BeatHandlers
from tests.core.nodes.beats import old_beat, our_beat, sent
from tests.hub.nodes import Hub


class Access:
    """Admits everyone, or nobody."""

    def __init__(self) -> None:
        self.refusal: BeatError | None = None
        self.peers: list[str] = []

    def admit(self, peer: str, headers: HeaderView) -> Sender:
        self.peers.append(peer)
        if self.refusal is not None:
            raise self.refusal
        return Sender(peer)


class Served:
    """A hub that takes beats on a port."""

    def __init__(self, most_held: int) -> None:
        self.hub, self.access = Hub(), Access()
        door = BeatDoor(self.hub.registry, self.access)
        self.handlers = BeatHandlers(door, most_held=most_held)
        self.url = ""
        self.session: aiohttp.ClientSession

    async def post(
        self, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        async with self.session.post(
            self.url, data=io.BytesIO(body), headers=headers
        ) as answer:
            assert answer.content_type == "application/json"
            return answer.status, json.loads(await answer.read())


@contextlib.asynccontextmanager
async def serving(most_held: int = 32 << 20) -> AsyncIterator[Served]:
    served = Served(most_held)
    app = web.Application()
    app.add_routes(served.handlers.routes())
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = site._server
    assert isinstance(server, asyncio.Server)
    port = server.sockets[0].getsockname()[1]
    served.url = f"http://127.0.0.1:{port}/nodes/heartbeat"
    async with aiohttp.ClientSession() as served.session:
        yield served
    await runner.cleanup()


async def test_a_beat_is_answered_and_known() -> None:
    async with serving() as served:
        status, answer = await served.post(sent(old_beat()))
        again = await served.post(sent(our_beat(seq=3)))

    assert (status, answer["status"]) == (200, "ok")
    assert again[1]["accepted"] == 3
    assert served.access.peers == ["127.0.0.1", "127.0.0.1"]
    assert served.hub.status() == "online"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (sent(old_beat("a\nb")), 422, "no name for a node"),
        (sent(old_beat(models=["a"] * 100_000)), 422, "100000 models are too many"),
        (b" " * (10 << 20), 413, "up to 1 MiB"),
    ],
)
async def test_what_is_no_beat_is_refused_in_both_shapes(
    body: bytes, status: int, words: str
) -> None:
    async with serving() as served:
        told, answer = await served.post(body)

    assert told == status
    assert answer["error"] == answer["detail"]
    assert words in str(answer["error"])
    assert list(served.hub.registry) == []


async def endless(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65536):
        yield b" " * 65536


async def test_a_body_that_does_not_say_its_length_is_bounded_too() -> None:
    async with serving() as served:
        body = endless(4 * LARGEST_BEAT)
        async with served.session.post(served.url, data=body) as answer:
            assert answer.status == 413


async def test_a_stranger_is_refused_before_the_body_is_read() -> None:
    async with serving() as served:
        served.access.refusal = BeatError(401, "no such key")
        async with served.session.post(served.url, data=b"{") as answer:
            told = await answer.json()

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert told == {"detail": "no such key", "error": "no such key"}


async def test_a_web_page_does_not_beat() -> None:
    async with serving() as served:
        status, _ = await served.post(sent(old_beat()), {"Origin": "https://evil.test"})

    assert status == 403
    assert served.access.peers == []


async def test_bodies_that_arrive_together_are_bounded_together() -> None:
    async with serving(most_held=100_000) as served:
        slow = asyncio.Event()

        async def halting() -> AsyncIterator[bytes]:
            yield b" " * 90_000
            await slow.wait()
            yield sent(old_beat("slow"))

        async with asyncio.TaskGroup() as tasks:
            waits = tasks.create_task(_status(served, halting()))
            while served.handlers._held < 90_000:
                await asyncio.sleep(0.01)
            status, answer = await served.post(b" " * 20_000 + sent(old_beat("box")))
            slow.set()
            first = await waits
        await served.post(sent(old_beat("later")))

    assert (status, first) == (503, 200)
    assert "send this one again" in str(answer["error"])
    assert served.handlers._held == 0
    assert [one["node_id"] for one in served.hub.registry.listed()] == ["later", "slow"]


async def _status(served: Served, body: AsyncIterator[bytes]) -> int:
    async with served.session.post(served.url, data=body) as answer:
        return answer.status


async def test_a_beat_that_never_ends_is_ended() -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    with mock.patch.object(beats, "READ_S", 0.1):
        async with serving() as served:
            async with served.session.post(served.url, data=never()) as answer:
                assert answer.status == 408
            assert served.handlers._held == 0
