"""Connections to instances are kept while they are good for another request."""

import asyncio
import os
import socket

import pytest
from multidict import CIMultiDict

from ollama_proxy.base.errors import UpstreamError
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.serving.shared_pulls import BufferedBody
from ollama_proxy.upstream.connection import Connection
from ollama_proxy.upstream.connection_pool import ConnectionPool
from ollama_proxy.upstream.endpoint import Link
from ollama_proxy.upstream.request import PreparedRequest
from tests.fakes.raw_upstream import raw_upstream, reply
from tests.upstream.rig import (
    ASK,
    OK,
    StillTransport,
    UnendingBody,
    UninvitedBody,
    WireSink,
    answers,
    asked,
    nothing,
    relay,
    to_send,
    whole,
)
from tests.upstream.test_response_parser import BODILESS, CHUNKED, MEASURED


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


async def test_it_is_told_when_a_request_begins_to_leave() -> None:
    sent: list[str] = []
    request = to_send()
    async with raw_upstream(OK) as there, relay() as one:
        there_url = there.url
        await whole(
            await one.ask(request, Upstream(there_url), lambda: sent.append(""))
        )
        assert sent == [""]
    async with relay() as one:
        with pytest.raises(UpstreamError) as caught:  # nothing listens there any more
            await one.ask(request, Upstream(there_url), lambda: sent.append("again"))

    assert sent == [""]
    assert not caught.value.arrived


async def test_a_connection_through_a_tunnel_is_new_each_time_and_not_kept() -> None:
    dialled: list[tuple[str, Connection]] = []

    async def dial(node_id: str, connection: Connection) -> None:
        dialled.append((node_id, connection))
        connection.connection_made(StillTransport())

    pool = ConnectionPool(dial=dial)
    key = pool.key_of(Upstream("http://tunnel.invalid", Link(tunnel="gpu-1")))
    first = await pool.connect(key, fresh=False)
    pool.keep(key, first)
    await pool.connect(key, fresh=False)

    assert not first.is_open
    assert [node_id for node_id, _ in dialled] == ["gpu-1", "gpu-1"]


async def test_a_pool_without_tunnels_refuses_to_dial_one() -> None:
    pool = ConnectionPool()
    key = pool.key_of(Upstream("http://tunnel.invalid", Link(tunnel="gpu-1")))

    with pytest.raises(ConnectionRefusedError, match="no tunnel of 'gpu-1' ends here"):
        await pool.connect(key, fresh=False)
