"""Clients that dribble, break off or fall silent do not disturb others."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.simulator.server import Manners
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import RawUpstream, raw_upstream, reply
from tests.proxy import RunningProxy, running_proxy
from tests.wire import read_answer

ASK = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n"
UPLOAD = b"POST /api/blobs/sha256:" + b"0" * 64 + b" HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"model":"tiny","prompt":"hi"}'


@pytest.fixture
async def ready(tmp_path: Path) -> AsyncIterator[tuple[RunningProxy, InProcessBackend]]:
    backend = InProcessBackend(Manners(rate=50.0))
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        yield proxy, backend


@pytest.fixture
async def swallowing(
    tmp_path: Path,
) -> AsyncIterator[tuple[RunningProxy, RawUpstream, list[bytes]]]:
    """A proxy before a server that reads a body to its end, and keeps it."""
    got: list[bytes] = []

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        got.append(await reader.read())
        writer.write(reply(b""))

    async with (
        raw_upstream(script) as upstream,
        running_proxy(
            tmp_path,
            backend=StaticBackend(upstream.url),
            OLLAMA_PROXY_STALL_TIMEOUT="500ms",
        ) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        yield proxy, upstream, got


async def test_headers_that_dribble_in_disturb_nobody(
    ready: tuple[RunningProxy, InProcessBackend],
) -> None:
    proxy, backend = ready
    request = ASK + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY)
    slow = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(50)]
    for at in range(0, len(request), 40):
        for _, writer in slow:
            writer.write(request[at : at + 40])
        async with proxy.session.get(f"{proxy.url}/api/version") as answer:
            assert answer.status == 200
    asked = backend.simulator.counters.requests.get("/api/generate", 0)
    for _, writer in slow:
        writer.write(BODY)
    async with asyncio.timeout(10):
        answers = [await read_answer(reader, "POST") for reader, _ in slow]
    for _, writer in slow:
        writer.close()

    assert asked == 0
    assert {answer.status for answer in answers} == {b"HTTP/1.1 200 OK"}


async def test_a_client_that_closes_its_half_is_gone(
    ready: tuple[RunningProxy, InProcessBackend],
) -> None:
    proxy, backend = ready
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    stall = b"X-Simulator-Fault: stall-after=1\r\n"
    writer.write(ASK + stall + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    async with asyncio.timeout(5):
        await reader.readuntil(b"}\n")
    writer.write_eof()
    counters = backend.simulator.counters
    await proxy.until(lambda: counters.cancelled == 1, within_s=10.0)
    writer.close()

    assert proxy.parts.pool.in_flight == 0


@pytest.mark.parametrize(
    ("framing", "begun", "broken"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"zz\r\nhello\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b""),
        (b"Content-Length: 400000\r\n\r\n", b"hello", b""),
    ],
    ids=["a bad chunk", "no last chunk", "less than its length"],
)
async def test_a_body_that_is_not_whole_never_ends_cleanly(
    swallowing: tuple[RunningProxy, RawUpstream, list[bytes]],
    framing: bytes,
    begun: bytes,
    broken: bytes,
) -> None:
    proxy, upstream, got = swallowing
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(UPLOAD + framing + begun)
    await proxy.until(lambda: len(upstream.heads) == 1)
    await asyncio.sleep(0.05)
    writer.write(broken)
    if broken:
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionResetError):
                await reader.read()
    writer.close()
    await proxy.until(lambda: len(got) == 1)

    assert b"hello" in got[0]
    assert b"0\r\n\r\n" not in got[0]
    assert len(got[0]) < 400_000


async def test_a_client_that_falls_silent_in_its_body_is_reset(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_STALL_TIMEOUT="200ms") as proxy:
        await proxy.wake()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(ASK + b"Content-Length: 5\r\n\r\n{")
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        writer.close()

        assert proxy.parts.pool.in_flight == 0
