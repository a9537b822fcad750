"""Connections to instances: bytes handed on as they come, and what ends them."""

import asyncio
import contextlib
import gc
import ssl
import weakref
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.serving.shared_pulls import BufferedBody
from ollama_proxy.upstream.certificates import Authority
from ollama_proxy.upstream.connection import Connection
from ollama_proxy.upstream.request import PreparedRequest
from tests.fakes.raw_upstream import raw_upstream, reply
from tests.upstream.rig import (
    StillTransport,
    UnendingBody,
    WireSink,
    answers,
    asked,
    nothing,
    relay,
    to_send,
    whole,
)
from tests.upstream.test_response_parser import CHUNKED, LAST, MEASURED, parsed, split

OURS, THEIRS = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")


async def passed_on(sink: WireSink, parts: list[bytes]) -> bytes:
    """Return what reaches a client of an answer that comes in these parts."""
    to_instance = Connection(lambda _gone: None)
    transport = StillTransport()
    to_instance.connection_made(transport)
    asking = asyncio.ensure_future(
        to_instance.ask("POST", b"", None, chunked=False, waits=False)
    )
    await asyncio.sleep(0)
    to_instance.data_received(CHUNKED)
    await asking
    pouring = asyncio.ensure_future(to_instance.pour(sink))
    await asyncio.sleep(0)
    for part in parts:
        while not transport.reads:
            await asyncio.sleep(0)
        to_instance.data_received(part)
    await pouring
    return sink.wire


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    cuts=st.lists(st.integers(min_value=0, max_value=400), max_size=12),
    full=st.booleans(),
)
def test_however_an_answer_is_cut_up_its_body_is_the_same(
    chunks: list[bytes], cuts: list[int], *, full: bool
) -> None:
    raw = b"".join(framed(chunk) for chunk in chunks) + LAST
    sink = WireSink(full=full)

    wire = asyncio.run(passed_on(sink, split(raw, cuts)))

    assert b"".join(parsed("GET", CHUNKED + wire + LAST).pieces) == b"".join(chunks)


def test_a_token_that_comes_as_a_whole_chunk_passes_as_it_is() -> None:
    sink = WireSink()
    tokens = [framed(b'{"response":"%d"}\n' % n) for n in range(5)]

    wire = asyncio.run(passed_on(sink, [*tokens, LAST]))

    assert wire == b"".join(tokens)
    assert sink.whole_chunks == 4  # the first tells where chunks begin


def test_the_end_of_a_length_is_not_taken_for_a_chunk() -> None:
    inner = b"d\r\n" + b"x" * 13 + b"\r\n"
    body = b"y" * 13 + b"\r\n" + b"z" * 14
    raw = framed(b"ab"), b"1", b"d\r\n" + body[:15], body[15:] + b"\r\n" + LAST
    assert len(body) == 0x1D
    assert len(raw[2]) == len(inner)

    sink = WireSink()
    wire = asyncio.run(passed_on(sink, list(raw)))

    assert b"".join(parsed("GET", CHUNKED + wire + LAST).pieces) == b"ab" + body
    assert sink.whole_chunks == 0


@pytest.mark.parametrize("broken", [b"5\r\nhelloXX", b"5\rXhello\r\n", b"5\nhello\r\n"])
def test_a_chunk_that_is_broken_ends_the_answer(broken: bytes) -> None:
    sink = WireSink()

    with pytest.raises(InstanceLostError, match="does not speak HTTP"):
        asyncio.run(passed_on(sink, [framed(b"hello"), broken]))

    assert sink.whole_chunks == 0


def test_nothing_is_read_while_a_client_has_no_room() -> None:
    sink = WireSink(full=True)
    tokens = [framed(b"token") for _ in range(4)]

    asyncio.run(passed_on(sink, [*tokens, LAST]))

    assert sink.waits == 4


async def test_an_answer_that_ends_with_half_the_connection_ends_at_once() -> None:
    async def script(
        _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\n\r\nno")
        writer.write_eof()
        await asyncio.sleep(60)

    async with raw_upstream(script) as there, relay() as one, asyncio.timeout(5):
        assert await asked(one, there, bytes(20_000_000)) == b"no"


async def test_a_failed_request_leaves_nothing_for_the_collector() -> None:
    async def script(_r: asyncio.StreamReader, _w: asyncio.StreamWriter) -> None:
        raise ConnectionResetError

    gc.collect()
    gc.disable()
    try:
        async with raw_upstream(script) as there, relay() as one:
            body = BufferedBody(b"{}")
            seen = weakref.ref(body)
            request = PreparedRequest("POST", "/", CIMultiDict(), body)
            with contextlib.suppress(UpstreamError):
                await one.ask(request, Upstream(there.url))
            del body, request
            await asyncio.sleep(0)

            assert seen() is None
    finally:
        gc.enable()


async def test_a_request_that_is_cancelled_while_it_ends_leaves_no_connection() -> None:
    left = asyncio.Event()

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(reply(b"early"))
        await reader.read()
        left.set()

    length = CIMultiDict({"Content-Length": "30"})
    uploading = PreparedRequest("POST", "/", length, UnendingBody())
    async with raw_upstream(script) as there, relay() as one:
        answer = await one.ask(uploading, Upstream(there.url))
        ending = asyncio.ensure_future(whole(answer))
        await asyncio.sleep(0.05)
        ending.cancel()

        async with asyncio.timeout(5):
            await left.wait()
        await asyncio.wait({ending})


async def test_a_lost_answer_is_told_from_a_whole_one() -> None:
    script = answers(MEASURED + b"o", then=lambda writer: writer.close())
    async with raw_upstream(script) as there, relay() as one:
        with pytest.raises(InstanceLostError, match="in the middle"):
            await asked(one, there)


async def test_nobody_there_is_told_as_such() -> None:
    async with raw_upstream(answers(b"", then=nothing)) as there:
        pass
    async with relay() as one:
        with pytest.raises(UpstreamError, match="did not answer") as caught:
            await one.ask(to_send(), Upstream(there.url))

    assert not caught.value.arrived


@pytest.mark.parametrize("body", [b"", b"x" * 5_000_000])
async def test_a_body_arrives_whole(body: bytes) -> None:
    got = b""

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal got
        got = await reader.readexactly(len(body))
        writer.write(reply(b"ok"))

    async with raw_upstream(script) as there, relay() as one:
        assert await asked(one, there, body) == b"ok"

    assert got == body


async def test_a_header_with_a_line_break_is_not_sent() -> None:
    request = PreparedRequest(
        "GET", "/", CIMultiDict({"X": "a\r\nY: b"}), BufferedBody(b"")
    )
    async with raw_upstream(answers(b"", then=nothing)) as there, relay() as one:
        with pytest.raises(ValueError, match="line break"):
            await one.ask(request, Upstream(there.url))

    assert there.connections == 0


@pytest.mark.parametrize(
    ("issuer", "launch", "is_spoken_to"),
    [("ours", OURS, True), ("ours", THEIRS, False), ("other", OURS, False)],
)
async def test_a_request_goes_only_to_the_launch_that_was_meant(
    tmp_path: Path, issuer: str, launch: LaunchId, *, is_spoken_to: bool
) -> None:
    authority = Authority(tmp_path / "ours", SystemClock())
    issued = Authority(tmp_path / issuer, SystemClock()).issue(launch)
    (tmp_path / "crt").write_text(issued.certificate)
    (tmp_path / "key").write_text(issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    heard = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard = await reader.readuntil(b"{}")
        writer.write(CHUNKED + framed(b"one "))
        await writer.drain()
        writer.write(framed(b"two") + LAST)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    upstream = Upstream(url, authority.link(OURS))
    async with relay() as one, server:
        if is_spoken_to:
            assert await whole(await one.ask(to_send(), upstream)) == b"one two"
        else:
            with pytest.raises(UpstreamError, match="certificate"):
                await one.ask(to_send(), upstream)

    assert bool(heard) == is_spoken_to
    assert (authority.token(OURS).encode() in heard) == is_spoken_to


async def test_a_large_head_that_comes_in_pieces_is_taken_whole() -> None:
    fields = b"".join(b"X-%d: %b\r\n" % (n, b"a" * 10_000) for n in range(30))
    raw = b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\nok"
    async with raw_upstream(answers(raw, then=nothing)) as there, relay() as one:
        async with asyncio.timeout(5.0):
            assert await asked(one, there) == b"ok"


async def test_a_connection_that_ends_with_its_invitation_is_lost() -> None:
    connection = Connection(lambda _gone: None)
    connection.connection_made(StillTransport())
    asking = asyncio.ensure_future(
        connection.ask("POST", b"head", b"body", chunked=False, waits=True)
    )
    await asyncio.sleep(0)
    connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    connection.connection_lost(ConnectionResetError("by the instance"))

    with pytest.raises(ConnectionResetError, match="by the instance"):
        await asking
    assert not await connection.end()
