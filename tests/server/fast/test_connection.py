"""A client's connection: served here, handed over, in order, and given up in time."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.server.fast.connection import ClientConnection
from ollama_proxy.server.fast.parser import PlainRequest
from ollama_proxy.server.half_closed import MOMENT_S
from tests.fakes.instance import InProcessBackend
from tests.proxy import needs_fast_path, relaying_proxy, running_proxy
from tests.virtual_time import in_virtual_time

pytestmark = needs_fast_path

GET = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


class Wire(asyncio.Transport):
    """A transport that keeps what is done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol | None = None
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def write_eof(self) -> None:
        self.written.append(b"EOF")

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Behind(asyncio.Protocol):
    """What a connection is handed over to."""

    def __init__(self) -> None:
        self.came = b""
        self.is_full = False

    def data_received(self, data: bytes) -> None:
        self.came += data

    def pause_writing(self) -> None:
        self.is_full = True


class Slow:
    """Serves each request when the test lets it; leaves those of ``refuses``."""

    def __init__(self, refuses: Callable[[str], bool] = lambda _path: False) -> None:
        self.asked: list[str] = []
        self.may_end: list[asyncio.Event] = []
        self.unbegun = 0
        self._refuses = refuses

    def take(self, client: ClientConnection, request: PlainRequest) -> bool:
        self.asked.append(request.path)
        if self._refuses(request.path):
            return False
        serve = partial(self._serve, client, request.path)
        client.run(serve, unbegun=self._note_unbegun)
        return True

    def _note_unbegun(self) -> None:
        self.unbegun += 1

    async def _serve(self, client: ClientConnection, path: str) -> None:
        self.may_end.append(asyncio.Event())
        await self.may_end[-1].wait()
        client.send(path.encode())


class Case:
    """A connection with everything around it."""

    def __init__(self, fast_path: Slow) -> None:
        self.wire, self.behind = Wire(), Behind()
        self.gone: list[ClientConnection] = []
        self.made: list[ClientConnection] = []
        self.client = ClientConnection(
            fast_path,
            lambda _tried_on: self.behind,
            made=self.made.append,
            gone=self.gone.append,
        )
        self.client.connection_made(self.wire)


async def serving(slow: Slow) -> Case:
    """Return a connection whose first request is being served."""
    case = Case(slow)
    case.client.data_received(GET % 1)
    await asyncio.sleep(0)
    return case


async def test_a_request_that_comes_early_waits_for_its_turn() -> None:
    slow = Slow()
    case = await serving(slow)
    case.client.data_received(b"\r\n" + GET % 2)

    assert slow.asked == ["/1"]

    slow.may_end[0].set()
    await asyncio.sleep(0.01)
    assert slow.asked == ["/1", "/2"]
    slow.may_end[1].set()
    await asyncio.sleep(0.01)
    assert case.wire.written == [b"/1", b"/2"]


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_request_that_never_began_is_told_of_once(*, has_begun: bool) -> None:
    slow = Slow()
    case = Case(slow)
    case.client.data_received(GET % 1)
    if has_begun:
        await asyncio.sleep(0)
    case.client.connection_lost(None)
    case.client.connection_lost(None)
    await asyncio.sleep(0)

    assert len(slow.may_end) == has_begun
    assert slow.unbegun == (not has_begun)


async def test_what_is_not_taken_is_handed_over_with_all_that_came() -> None:
    case = Case(Slow(refuses=lambda _path: True))
    case.client.data_received(POST[:-1])
    case.client.data_received(POST[-1:])

    assert case.behind.came == POST
    assert case.wire.protocol is case.behind
    assert case.made == [case.client]
    assert case.gone == [case.client]


async def test_a_client_that_reads_nothing_is_handed_over_as_that() -> None:
    slow = Slow()
    case = Case(slow)
    case.client.pause_writing()
    case.client.data_received(POST)

    assert case.behind.is_full
    assert case.behind.came == POST
    assert slow.asked == []


async def test_who_sends_much_before_its_turn_is_not_handed_over() -> None:
    class Failing(Slow):
        async def _serve(self, client: ClientConnection, path: str) -> None:
            await super()._serve(Case(self).client, path)
            assert not client.hand_over()

    slow = Failing()
    case = await serving(slow)
    case.client.data_received(bytes(70_000))
    slow.may_end[0].set()
    await asyncio.sleep(0.01)

    assert case.behind.came == b""
    assert case.wire.is_closed


@in_virtual_time
async def test_who_sends_no_more_has_a_moment_left_for_an_answer() -> None:
    slow = Slow()
    case = await serving(slow)
    assert case.client.eof_received()
    await asyncio.sleep(MOMENT_S / 2)
    slow.may_end[0].set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert case.wire.written == [b"/1"]
    assert case.wire.is_closed


@in_virtual_time
async def test_who_sends_no_more_and_would_have_to_wait_has_left() -> None:
    slow = Slow()
    case = await serving(slow)
    case.client.eof_received()
    await asyncio.sleep(MOMENT_S * 1.1)

    assert case.wire.is_closed
    assert case.wire.written == []


async def test_who_sends_no_more_is_sent_no_more_of_a_stream() -> None:
    class Streaming(Slow):
        async def _serve(self, client: ClientConnection, path: str) -> None:
            client.send(b"begun")
            await super()._serve(client, path)

    case = await serving(Streaming())
    case.client.eof_received()
    await asyncio.sleep(0.01)

    assert case.wire.is_closed
    assert case.wire.written == [b"begun"]


async def test_what_was_asked_before_the_end_is_answered_in_its_turn() -> None:
    slow = Slow()
    case = await serving(slow)
    case.client.data_received(GET % 2)
    case.client.eof_received()
    for turn in (0, 1):
        slow.may_end[turn].set()
        await asyncio.sleep(0.01)

    assert case.wire.written == [b"/1", b"/2"]
    assert case.wire.is_closed


async def test_who_sends_no_more_and_asked_nothing_is_closed() -> None:
    case = Case(Slow())

    assert not case.client.eof_received()


async def test_a_line_break_after_a_request_is_nothing() -> None:
    slow = Slow()
    case = await serving(slow)
    case.client.data_received(b"\r\n")
    slow.may_end[0].set()
    await asyncio.sleep(0.01)

    assert case.behind.came == b""
    assert case.client.is_idle


async def test_nothing_is_begun_for_a_client_that_is_being_closed() -> None:
    class Failing(Slow):
        async def _serve(self, client: ClientConnection, path: str) -> None:
            await super()._serve(client, path)
            raise ConnectionResetError

    slow = Failing()
    case = await serving(slow)
    case.client.data_received(GET % 2)
    slow.may_end[0].set()
    await asyncio.sleep(0.01)

    assert case.wire.is_closed
    assert slow.asked == ["/1"]


async def test_a_wait_for_room_that_is_given_up_ends_no_other() -> None:
    case = Case(Slow())
    case.client.pause_writing()
    first, second = (asyncio.ensure_future(case.client.drain()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    assert not second.done()

    case.client.resume_writing()
    await asyncio.wait_for(second, 10.0)


async def test_it_is_told_when_there_is_nobody_to_hand_over() -> None:
    case = Case(Slow())
    case.wire.is_closed = True

    assert not case.client.hand_over()
    assert case.behind.came == b""


async def test_early_requests_are_handed_over_together_with_one_that_fails() -> None:
    class Failing(Slow):
        async def _serve(self, client: ClientConnection, path: str) -> None:
            await super()._serve(Case(self).client, path)
            client.hand_over()

    slow = Failing()
    case = await serving(slow)
    case.client.data_received(GET % 2)
    slow.may_end[0].set()
    await asyncio.sleep(0.01)

    assert case.behind.came == GET % 1 + GET % 2


@in_virtual_time
async def test_a_body_whose_rest_does_not_come_is_waited_for_elsewhere() -> None:
    case = Case(Slow())
    case.client.data_received(POST[:-1])
    await asyncio.sleep(0.9)
    assert case.behind.came == b""
    assert not case.client.is_idle

    await asyncio.sleep(0.2)
    assert case.behind.came == POST[:-1]


async def test_a_client_that_leaves_ends_its_request() -> None:
    slow = Slow()
    case = await serving(slow)
    case.client.connection_lost(None)
    await asyncio.sleep(0)
    slow.may_end[0].set()
    await asyncio.sleep(0.01)

    assert case.wire.written == []
    assert case.client.transport is None
    with pytest.raises(ConnectionResetError):
        case.client.send(b"")


async def test_a_client_that_leaves_at_once_is_not_served() -> None:
    slow = Slow()
    case = Case(slow)
    case.client.data_received(GET % 1)
    case.client.connection_lost(None)
    await asyncio.sleep(0.01)

    assert slow.asked == ["/1"]
    assert slow.may_end == []


async def test_a_wait_for_room_ends_when_there_is_some_or_nobody() -> None:
    for ending in ("resume_writing", "connection_lost"):
        case = Case(Slow())
        case.client.pause_writing()
        draining = asyncio.ensure_future(case.client.drain())
        await asyncio.sleep(0)
        assert not draining.done()

        getattr(case.client, ending)(*([None] if ending == "connection_lost" else []))
        await asyncio.wait_for(draining, 10.0)


async def test_the_last_answer_is_whole_before_a_connection_ends() -> None:
    slow = Slow()
    case = await serving(slow)
    case.client.end()
    assert not case.wire.is_closed

    slow.may_end[0].set()
    await asyncio.sleep(0.01)
    assert case.wire.written == [b"/1"]
    assert case.wire.is_closed


@in_virtual_time
async def test_the_end_of_the_last_answer_is_not_lost_for_what_was_not_read() -> None:
    slow = Slow()
    case = await serving(slow)
    case.client.data_received(bytes(70_000))
    slow.may_end[0].set()
    await asyncio.sleep(0.01)
    assert case.wire.written == [b"/1", b"EOF"]
    assert not case.wire.is_closed

    case.client.data_received(GET % 2)
    await asyncio.sleep(2.1)
    assert slow.asked == ["/1"]
    assert case.wire.is_closed


async def test_one_connection_may_carry_both_kinds_of_requests(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, backend=InProcessBackend()) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        told = []
        for raw in (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A:" + b"a" * 300_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        ):
            writer.write(raw)
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].split()[0])
            told.append((head.split()[1], await reader.readexactly(size)))
        rest = await reader.read()
        writer.close()

    assert [status for status, _ in told] == [b"200"] * 4
    assert told[0] == told[2] == told[3]
    assert rest == b""


async def test_a_client_that_leaves_a_stream_gives_its_lease_back(
    tmp_path: Path,
) -> None:
    left = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: Any) -> None:
        await reader.readexactly(2)
        writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
        )
        try:
            await reader.readexactly(1)
        finally:
            left.set()

    async with relaying_proxy(tmp_path, endless) as (_upstream, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(POST.replace(b"/0", b"/api/embed"))
        await reader.readuntil(b"ab\r\n")
        assert proxy.parts.pool.in_flight == 1
        assert proxy.behind == 0

        writer.close()
        await asyncio.wait_for(left.wait(), 5.0)
        await proxy.until(lambda: proxy.parts.pool.in_flight == 0)
        async with proxy.session.get(f"{proxy.url}/metrics") as metrics:
            counted = await metrics.text()

    assert '{kind="inference",outcome="abandoned"} 1.0' in counted
