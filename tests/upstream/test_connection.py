"""Connections to instances: bytes handed on as they come, kept while they are good."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.serving.shared_pulls import BufferedBody
from ollama_proxy.upstream.certificates import Authority
from ollama_proxy.upstream.client import Answer, UpstreamClient
from ollama_proxy.upstream.connection import Connection
from ollama_proxy.upstream.connection_pool import ConnectionPool
from ollama_proxy.upstream.loop_mark import LoopMark
from ollama_proxy.upstream.request import PreparedRequest
from tests.fakes.raw_upstream import RawUpstream, Script, raw_upstream, reply
from tests.upstream.test_response_parser import (
    BODILESS,
    CHUNKED,
    LAST,
    MEASURED,
    parsed,
    split,
)

OURS, THEIRS = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")


class WireSink:
    """Keeps what a client's connection would be sent."""

    is_chunked = True

    def __init__(self, *, full: bool = False) -> None:
        self.wire = b""
        self.whole_chunks = 0
        self.waits = 0
        self._full = full

    def take(self, pieces: list[bytes]) -> bool:
        self.wire += b"".join(framed(piece) for piece in pieces)
        return self._full

    def write_chunk(self, chunk: bytes) -> bool:
        self.whole_chunks += 1
        self.wire += chunk
        return self._full

    async def room(self) -> None:
        self.waits += 1
        await asyncio.sleep(0)


class StillTransport(asyncio.Transport):
    """A transport that goes nowhere; it remembers whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True
        self.closed = False

    def write(self, data: object) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


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


def to_send(body: bytes = b"{}") -> PreparedRequest:
    return PreparedRequest("POST", "/api/x", CIMultiDict(), BufferedBody(body))


async def whole(answer: Answer) -> bytes:
    async with answer:
        return b"".join([chunk async for chunk in answer.chunks()])


async def asked(one: UpstreamClient, there: RawUpstream, body: bytes = b"{}") -> bytes:
    return await whole(await one.ask(to_send(body), Upstream(there.url)))


@contextlib.asynccontextmanager
async def relay(timing: Timing = STANDARD) -> AsyncIterator[UpstreamClient]:
    one = UpstreamClient(LoopMark("owner"), timing)
    try:
        yield one
    finally:
        await one.aclose()


def answers(raw: bytes, *, then: Callable[[asyncio.StreamWriter], None]) -> Script:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(2)
        writer.write(raw)
        then(writer)

    return script


def nothing(_writer: asyncio.StreamWriter) -> None: ...


ASK = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
OK = answers(reply(b"ok"), then=nothing)


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with (
        raw_upstream(OK) as there,
        relay() as one,
    ):
        said = [await asked(one, there) for _ in "123"]

    assert said == [b"ok"] * 3
    assert there.connections == 1


async def test_one_that_was_closed_meanwhile_is_not_used() -> None:
    script = answers(reply(b"ok"), then=lambda writer: writer.close())
    async with raw_upstream(script) as there, relay() as one:
        for _ in range(3):
            await asked(one, there)
            await asyncio.sleep(0.02)

    assert there.connections == len(there.heads) == 3


async def test_one_that_speaks_unasked_is_not_used() -> None:
    async def chatty(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await OK(reader, writer)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(reply(b"a stranger's"))

    async with raw_upstream(chatty) as there, relay() as one:
        for _ in range(2):
            said = await asked(one, there)
            assert said == b"ok"
            await asyncio.sleep(0.1)

    assert there.connections == 2


@pytest.mark.parametrize("last_words", [reply(b"a stranger's"), b"\r\n", b""])
async def test_one_that_spoke_or_ended_a_moment_ago_is_not_used(
    last_words: bytes,
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await OK(reader, writer)
        writers.append(writer)

    async with raw_upstream(script) as there, relay() as one:
        assert await asked(one, there) == b"ok"
        bound = writers[0].get_extra_info("socket")
        if last_words:
            os.write(bound.fileno(), last_words)  # not read yet: the loop has no turn
        else:
            bound.shutdown(socket.SHUT_WR)
        assert await asked(one, there) == b"ok"

    assert there.connections == len(there.heads) == 2


@pytest.mark.parametrize("extra", [b"hi", b"2\r\n", framed(b"hi") + b"0\r\n\r\n"])
@pytest.mark.parametrize(("method", "head"), BODILESS)
async def test_one_with_bytes_behind_an_answer_without_a_body_is_not_used(
    method: str, head: bytes, extra: bytes
) -> None:
    async def script(
        _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(head + extra)

    async with raw_upstream(script) as there, relay() as one, asyncio.timeout(5):
        for _ in range(2):
            request = PreparedRequest(method, "/", CIMultiDict(), BufferedBody(b""))
            answer = await one.ask(request, Upstream(there.url))
            sink = WireSink()
            async with answer:
                await answer.pour(sink)
                await asyncio.sleep(0.01)
            assert sink.wire == b""

    assert there.connections == 2


async def test_a_chunk_behind_an_answer_to_head_reaches_nobody() -> None:
    to_instance, sink = Connection(lambda _gone: None), WireSink()
    to_instance.connection_made(StillTransport())
    asking = asyncio.ensure_future(
        to_instance.ask("HEAD", b"", None, chunked=False, waits=False)
    )
    await asyncio.sleep(0)
    to_instance.data_received(CHUNKED + framed(b"one"))
    await asking
    await asyncio.wait_for(to_instance.pour(sink), 5)
    to_instance.data_received(framed(b"two"))

    assert sink.wire == b""
    assert not await to_instance.end()


async def test_one_whose_instance_answered_in_mid_upload_is_not_used() -> None:
    async def early(
        _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(reply(b"enough"))

    length = CIMultiDict({"Content-Length": "30"})
    async with raw_upstream(early) as there, relay() as one:
        for _ in range(2):
            uploading = PreparedRequest("POST", "/", length, UnendingBody())
            assert await whole(await one.ask(uploading, Upstream(there.url)))

    assert there.connections == 2


@pytest.mark.parametrize("status", [b"099 Odd", b"101 Switching Protocols"])
async def test_a_status_that_ends_nothing_is_no_answer(status: bytes) -> None:
    raw = b"HTTP/1.1 " + status + b"\r\n\r\n" + reply(b"ok")
    async with raw_upstream(answers(raw, then=nothing)) as there, relay() as one:
        with pytest.raises(UpstreamError, match="did not answer"):
            await asked(one, there)


async def test_one_whose_answer_was_not_read_is_not_used() -> None:
    async with (
        raw_upstream(OK) as there,
        relay() as one,
    ):
        for _ in range(2):
            async with await one.ask(to_send(), Upstream(there.url)):
                pass

    assert there.connections == 2


async def test_one_that_is_to_be_closed_is_not_used() -> None:
    script = answers(reply(b"ok", b"Connection: close"), then=nothing)
    async with raw_upstream(script) as there, relay() as one:
        assert [await asked(one, there) for _ in "12"] == [b"ok", b"ok"]

    assert there.connections == 2


async def test_one_that_is_being_closed_is_not_used() -> None:
    async with raw_upstream(OK) as there:
        connector = ConnectionPool()
        address = connector.key_of(Upstream(there.url))
        first = await connector.connect(address, fresh=False)
        connector.keep(address, first)
        first.close()

        assert await connector.connect(address, fresh=False) is not first
        await connector.aclose()


class UninvitedBody(BufferedBody):
    """A body that its client sends only when it is invited."""

    expects = True

    def __init__(self) -> None:
        super().__init__(b"")
        self.complete = False

    def payload(self) -> Any:
        return self._parts()

    async def _parts(self) -> AsyncIterator[bytes]:
        yield b"never sent"


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_one_that_was_promised_a_body_and_got_none_is_not_used(
    before: bytes,
) -> None:
    async def script(
        _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(before + reply(b"no need"))

    length = CIMultiDict({"Content-Length": "30"})
    uninvited = PreparedRequest("POST", "/api/blobs/x", length, UninvitedBody())
    async with raw_upstream(script) as there, relay() as one:
        assert await whole(await one.ask(uninvited, Upstream(there.url))) == b"no need"
        assert await asked(one, there, b"") == b"no need"

    assert there.connections == 2
    assert len(there.heads) == 2


async def test_what_an_instance_has_worked_on_is_not_sent_again() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if len(there.heads) > 1:
            await reader.readexactly(2)
            await asyncio.sleep(0.1)
            raise ConnectionResetError
        await OK(reader, writer)

    async with raw_upstream(script) as there, relay(Timing(stale_s=0.05)) as one:
        assert await asked(one, there) == b"ok"
        with pytest.raises(UpstreamError) as caught:
            await asked(one, there)

    assert caught.value.arrived
    assert len(there.heads) == 2


async def test_one_that_closed_before_it_was_asked_again_was_stale() -> None:
    async with raw_upstream(OK) as there:
        connector = ConnectionPool()
        address = connector.key_of(Upstream(there.url))
        kept = await connector.connect(address, fresh=True)
        await kept.ask("POST", ASK, b"{}", chunked=False, waits=False)
        assert [chunk async for chunk in kept.chunks()] == [b"ok"]
        assert await kept.end()
        kept.connection_lost(None)
        kept._asked_at -= 60  # it was used a minute ago

        with pytest.raises(ConnectionResetError):
            await kept.ask("POST", ASK, b"{}", chunked=False, waits=False)

        assert kept.was_stale
        await connector.aclose()


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


class UnendingBody(UninvitedBody):
    """A body whose client is slow to be stopped."""

    expects = False

    async def _parts(self) -> AsyncIterator[bytes]:
        yield b"some"
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)


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


async def test_what_is_forgotten_is_not_used_but_may_end() -> None:
    goes_on = asyncio.Event()

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(2)
        writer.write(MEASURED)
        await goes_on.wait()
        writer.write(b"ok")

    async with raw_upstream(script) as there, relay() as one:
        under_way = await one.ask(to_send(), Upstream(there.url))
        one.forget()
        goes_on.set()
        assert await whole(under_way) == b"ok"
        assert await asked(one, there) == b"ok"

    assert there.connections == 2


async def test_idle_ones_are_closed_after_a_while() -> None:
    async with raw_upstream(OK) as there:
        connector = ConnectionPool(kept_for_s=0.05)
        address = connector.key_of(Upstream(there.url))
        kept = await connector.connect(address, fresh=False)
        connector.keep(address, kept)
        async with asyncio.timeout(5):
            while kept.is_open:
                await asyncio.sleep(0.01)
        await connector.aclose()


async def test_only_so_many_are_kept() -> None:
    async with raw_upstream(OK) as there:
        connector = ConnectionPool(kept_most=2)
        address = connector.key_of(Upstream(there.url))
        opened = [await connector.connect(address, fresh=True) for _ in range(3)]
        for one in opened:
            connector.keep(address, one)

        assert [one.is_open for one in opened] == [True, True, False]
        await connector.aclose()


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
