"""Requests on their way to aiohttp: what can be read in two ways goes no further."""

import asyncio
import gc
import weakref
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.base import log
from ollama_proxy.server.aiohttp.behind import Behind
from tests.fakes.raw_upstream import RawUpstream, reply
from tests.proxy import ORDERS, RunningProxy, relaying_proxy, running_proxy
from tests.wire import read_answer

POST = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"10\r\n" + b'{"model":"tiny"}' + b"\r\n"
NEXT = b"GET /api/ps HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
GET = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n"


async def answer(reader: StreamReader, writer: StreamWriter) -> None:
    writer.write(reply(b"ok"))


@pytest.fixture
async def relaying(tmp_path: Path) -> AsyncIterator[tuple[RawUpstream, RunningProxy]]:
    """A proxy before an instance that says ok to whatever it is asked."""
    async with relaying_proxy(tmp_path, answer) as (upstream, proxy):
        yield upstream, proxy


@pytest.mark.parametrize(
    "trailer", [b"Authorization: Bearer injected", b"Expect: foo", b"Prefer: wait=9"]
)
@pytest.mark.parametrize("pause_s", [0.0, 0.05])
async def test_a_trailer_is_no_header_of_the_next_request(
    relaying: tuple[RawUpstream, RunningProxy], trailer: bytes, pause_s: float
) -> None:
    upstream, proxy = relaying
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(CHUNKED + CHUNK + b"0\r\n" + trailer + b"\r\n\r\n")
    await asyncio.sleep(pause_s)
    writer.write(NEXT)
    async with asyncio.timeout(5):
        raw = await reader.read()
    writer.close()

    assert raw.count(b"HTTP/1.1 200 OK") == 2
    assert upstream.heads[-1].startswith(b"GET /api/ps ")
    assert not any(trailer.partition(b":")[0] in head for head in upstream.heads)


async def test_a_request_behind_an_upgrade_is_answered(
    relaying: tuple[RawUpstream, RunningProxy],
) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    raw = await relaying[1].raw(GET + upgrade + NEXT)

    assert raw.count(b"HTTP/1.1 200 OK") == 2


async def test_what_comes_before_a_refused_request_is_answered_first(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        raw = await proxy.raw(GET + b"\r\n" + GET + b"Expect: foo\r\n\r\n" + NEXT)

    first, _, second = raw.partition(b"HTTP/1.1 417 ")
    assert first.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/" not in second


async def test_a_refusal_is_one_line_without_a_byte_of_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, object]] = []

    def write(event: str, keys: dict[str, object]) -> None:
        logged.append({"event": event, **keys})

    async with running_proxy(tmp_path) as proxy:
        with monkeypatch.context() as patch:
            patch.setattr(log.REQUESTS, "write", write)
            await proxy.raw(GET + b"Authorization: Bearer SECRET\x01\r\n\r\n")
        async with proxy.session.get(f"{proxy.url}/metrics") as told:
            counted = await told.text()

    (line,) = logged
    assert (line["event"], line["status"]) == ("request.refused", 400)
    assert "SECRET" not in str(line)
    assert '{kind="unknown",outcome="refused"} 1.0' in counted


async def test_the_path_of_refusals_is_a_path_like_others(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        field = b"Authorization: %b\r\n\r\n" % ORDERS["Authorization"].encode()
        asked = NEXT.replace(b"/api/ps", b"/-/refused")
        raw = await proxy.raw(asked.replace(b"\r\n\r\n", b"\r\n" + field))

    assert raw.startswith(b"HTTP/1.1 404 ")


async def test_an_unknown_method_is_answered_as_ollama_does(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        raw = await proxy.raw(GET.replace(b"GET", b"BREW") + b"\r\n")

    assert raw.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: HEAD, GET\r\n" in raw
    assert raw.endswith(b"\r\n\r\n405 method not allowed")


async def test_a_body_that_breaks_off_in_the_middle_resets_its_connection(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(CHUNKED + CHUNK)
        await proxy.until(lambda: proxy.behind == 1)
        await asyncio.sleep(0.02)
        writer.write(b"zz\r\n")
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(5):
                await reader.read()
        writer.close()
        await proxy.until(lambda: proxy.behind == 0)


async def test_a_connection_that_is_closed_leaves_nothing_for_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        behind = Behind(asyncio.Protocol())
        behind.connection_made(asyncio.Transport())
        behind.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n")
        behind.connection_lost(None)
        seen = weakref.ref(behind._stream)
        del behind

        assert seen() is None
    finally:
        gc.enable()


async def test_a_connection_of_chunks_and_trailers_is_kept(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        for _ in range(3):
            writer.write(CHUNKED + CHUNK + b"0\r\nX-T: 1\r\n\r\n")
            async with asyncio.timeout(5):
                told = await read_answer(reader, "POST")
            assert not told.closed
        writer.close()
