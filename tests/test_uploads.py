"""Uploads: invited by the instance alone, ended by its word, of any length."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base.timing import Timing
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import RawUpstream, raw_upstream, reply
from tests.proxy import RunningProxy, running_proxy
from tests.wire import read_answer, send

BLOB = b"POST /api/blobs/sha256:" + b"0" * 64 + b" HTTP/1.1\r\nHost: x\r\n"
FIVE_GIB = 5 << 30
EXPECT = b"Expect: 100-continue\r\n"
INVITED = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture
async def refusing(tmp_path: Path) -> AsyncIterator[tuple[RunningProxy, RawUpstream]]:
    """A proxy before a server that refuses each upload unseen, and closes."""

    async def script(_r: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refusal = reply(b'{"error":"invalid digest format"}', b"Connection: close")
        writer.write(refusal.replace(b"200 OK", b"400 Bad Request"))
        await writer.drain()
        writer.close()

    async with (
        raw_upstream(script) as upstream,
        running_proxy(tmp_path, backend=StaticBackend(upstream.url)) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        yield proxy, upstream


async def test_an_upload_that_the_instance_refuses_is_not_invited(
    refusing: tuple[RunningProxy, RawUpstream],
) -> None:
    proxy, upstream = refusing
    length = b"Content-Length: %d\r\n\r\n" % FIVE_GIB
    raw = await proxy.raw(BLOB + EXPECT + length)

    assert raw.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close\r\n" in raw
    assert raw.endswith(b'{"error":"invalid digest format"}')
    assert b"Expect: 100-continue" in upstream.heads[0]
    assert b"Content-Length: %d" % FIVE_GIB in upstream.heads[0]


async def test_a_refusal_ends_an_upload_that_is_under_way(
    refusing: tuple[RunningProxy, RawUpstream],
) -> None:
    proxy, _ = refusing
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(BLOB + b"Content-Length: %d\r\n\r\n" % FIVE_GIB + b"x" * 100_000)
    async with asyncio.timeout(5):
        answer = await read_answer(reader, "POST")
        ended = await reader.read()
    writer.close()

    assert answer.status == b"HTTP/1.1 400 Bad Request"
    assert answer.header("Connection") == "close"
    assert ended == b""


async def test_the_client_is_invited_when_the_instance_invites(tmp_path: Path) -> None:
    wants = asyncio.Event()

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await wants.wait()
        writer.write(INVITED)
        body = await reader.readexactly(11)
        writer.write(reply(body))

    async with (
        raw_upstream(script) as upstream,
        running_proxy(tmp_path, backend=StaticBackend(upstream.url)) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(BLOB + EXPECT + b"Content-Length: 11\r\n\r\n")
        await proxy.until(lambda: len(upstream.heads) == 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        wants.set()
        async with asyncio.timeout(5):
            assert await reader.readexactly(len(INVITED)) == INVITED
            writer.write(b"hello world")
            answer = await read_answer(reader, "POST")
        writer.close()

    assert answer.body == b"hello world"


async def test_a_server_that_knows_no_expect_is_sent_the_body_all_the_same(
    tmp_path: Path,
) -> None:
    timing = Timing(invitation_s=0.1)

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(reply(await reader.readexactly(11)))

    async with (
        raw_upstream(script) as upstream,
        running_proxy(
            tmp_path, backend=StaticBackend(upstream.url), timing=timing
        ) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(BLOB + EXPECT + b"Content-Length: 11\r\n\r\n")
        async with asyncio.timeout(5):
            assert await reader.readexactly(len(INVITED)) == INVITED
            writer.write(b"hello world")
            answer = await read_answer(reader, "POST")
        writer.close()

    assert answer.body == b"hello world"
    assert b"Expect" not in upstream.heads[-1]


async def test_nobody_is_invited_to_upload_to_no_instance(tmp_path: Path) -> None:
    request = BLOB + EXPECT + b"Content-Length: 100000\r\n\r\n"
    async with running_proxy(tmp_path, backend=InProcessBackend(boot_s=0.5)) as proxy:
        answer = await send(proxy.port, request, method="POST")

    assert answer.status == b"HTTP/1.1 503 Service Unavailable"


async def test_an_audio_file_reaches_the_instance_as_it_was_sent(
    tmp_path: Path,
) -> None:
    form = aiohttp.FormData()
    form.add_field("model", "whisper")
    form.add_field("file", bytes(300_000), filename="speech.wav")
    written = form()
    got = []

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        got.append(await reader.readexactly(written.size or 0))
        writer.write(reply(b'{"text":"hello"}'))

    async with (
        raw_upstream(script) as upstream,
        running_proxy(
            tmp_path,
            backend=StaticBackend(upstream.url),
            OLLAMA_PROXY_HOLD="5s",
        ) as proxy,
        proxy.session.post(
            f"{proxy.url}/v1/audio/transcriptions", data=written
        ) as answer,
    ):
        assert await answer.json(content_type=None) == {"text": "hello"}

    assert bytes(300_000) in got[0]
    assert written.content_type.encode() in upstream.heads[0]
