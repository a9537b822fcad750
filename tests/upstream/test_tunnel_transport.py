"""One end of a tunnel, between a protocol and a WebSocket that is made up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from ollama_proxy.base.tasks import start_task
from ollama_proxy.upstream.tunnel_transport import MOST_FRAME, TunnelTransport

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
GONE = 257


@dataclass(frozen=True, slots=True)
class Message:
    type: int
    data: Any = b""


class FakeWebSocket:
    """Receives what a test puts in; ``takes`` is cleared to hold back what is sent."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[tuple[int, bytes]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.fault: OSError | None = None

    async def receive(self) -> Message:
        return await self.coming.get()

    async def _send(self, kind: int, data: bytes) -> None:
        await self.takes.wait()
        if self.fault is not None:
            raise self.fault
        self.sent.append((kind, data))

    async def send_bytes(self, data: bytes) -> None:
        await self._send(BINARY, data)

    async def ping(self, message: bytes = b"") -> None:
        await self._send(PING, message)

    async def pong(self, message: bytes = b"") -> None:
        await self._send(PONG, message)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 8000), "socket": object()}.get(name, default)

    def of_kind(self, kind: int) -> list[bytes]:
        return [data for one, data in self.sent if one == kind]

    def give(self, kind: int, data: Any = b"") -> None:
        self.coming.put_nowait(Message(kind, data))


class Recorder(asyncio.Protocol):
    """Keeps what a transport tells it."""

    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None
        self.data = b""
        self.ends: list[Exception | None] = []
        self.holds: list[bool] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)

    def pause_writing(self) -> None:
        self.holds.append(True)

    def resume_writing(self) -> None:
        self.holds.append(False)


class Rig:
    """A running transport over a made-up WebSocket."""

    def __init__(self, *, look_s: float, enters: bool) -> None:
        self.web_socket = FakeWebSocket()
        self.protocol = Recorder()
        enter = (lambda: self.protocol) if enters else None
        self.tunnel = TunnelTransport(self.web_socket, enter, look_s=look_s)
        self.task = start_task(self.tunnel.run())

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def ended(self) -> None:
        async with asyncio.timeout(20):
            await self.task


@contextlib.asynccontextmanager
async def rig(*, look_s: float = 60.0, enters: bool = False) -> AsyncIterator[Rig]:
    made = Rig(look_s=look_s, enters=enters)
    await made.settle()
    try:
        yield made
    finally:
        made.task.cancel()
        await asyncio.wait({made.task})


async def test_bytes_pass_in_both_directions() -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        one.web_socket.give(BINARY, b"in")
        one.tunnel.write(b"out")
        await one.settle()

        assert one.protocol.data == b"in"
        assert one.web_socket.of_kind(BINARY) == [b"out"]
        assert one.protocol.transport is one.tunnel


async def test_bytes_on_an_idle_tunnel_end_it() -> None:
    async with rig() as one:
        one.web_socket.give(BINARY, b"HTTP/1.1 200 OK\r\n\r\n")
        await one.ended()

        assert not one.tunnel.is_idle


async def test_the_first_bytes_make_the_protocol_of_a_server() -> None:
    async with rig(enters=True) as one:
        assert one.tunnel.is_idle
        one.web_socket.give(BINARY, b"GET /")
        await one.settle()

        assert one.tunnel.was_used
        assert one.protocol.data == b"GET /"


async def test_a_pause_leaves_messages_unread() -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        one.tunnel.pause_reading()
        one.web_socket.give(BINARY, b"first")
        one.web_socket.give(BINARY, b"second")
        await one.settle()
        assert one.protocol.data == b""
        assert one.web_socket.coming.qsize() == 1
        assert not one.tunnel.is_reading()

        one.tunnel.resume_reading()
        await one.settle()
        assert one.protocol.data == b"firstsecond"


async def test_an_end_is_noticed_during_a_pause() -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        one.tunnel.pause_reading()
        one.web_socket.give(GONE)
        await one.ended()

        assert [type(end) for end in one.protocol.ends] == [ConnectionResetError]


async def test_a_protocol_is_held_while_much_waits_and_let_go_after() -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        one.web_socket.takes.clear()
        one.tunnel.write(bytes(MOST_FRAME))
        assert one.protocol.holds == []
        one.tunnel.write(b"x")
        assert one.protocol.holds == [True]
        assert one.tunnel.get_write_buffer_size() == MOST_FRAME + 1
        assert one.tunnel.get_write_buffer_limits() == (MOST_FRAME // 2, MOST_FRAME)

        one.web_socket.takes.set()
        await one.settle()
        assert one.protocol.holds == [True, False]
        assert one.tunnel.get_write_buffer_size() == 0


async def test_what_is_sent_is_cut_and_joined_to_frames_of_64_kib() -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        whole = bytes(range(256)) * 1024
        one.tunnel.write(whole)
        for at in range(10):
            one.tunnel.write(b"%d" % at)
        await one.settle()

        frames = one.web_socket.of_kind(BINARY)
        assert b"".join(frames) == whole + b"0123456789"
        assert max(map(len, frames)) == MOST_FRAME
        assert len(frames) == 5


async def test_a_ping_is_answered() -> None:
    async with rig() as one:
        one.web_socket.give(PING, b"are you there")
        await one.settle()

        assert one.web_socket.of_kind(PONG) == [b"are you there"]


async def test_a_flood_of_pings_keeps_no_more_than_one_answer() -> None:
    async with rig() as one:
        one.web_socket.takes.clear()
        for number in range(1000):
            one.web_socket.give(PING, b"%d" % number)
        async with asyncio.timeout(20):
            while not one.web_socket.coming.empty():
                await asyncio.sleep(0)
        one.web_socket.takes.set()
        await one.settle()

        assert len(one.web_socket.of_kind(PONG)) <= 2


async def test_an_end_that_is_silent_is_given_up_after_pings() -> None:
    async with rig(look_s=0.02) as one:
        one.tunnel.attach(one.protocol)
        await one.ended()

        assert one.web_socket.of_kind(PING) == [b"", b""]
        assert "sent nothing for 0.06 s" in str(one.protocol.ends[0])


async def test_an_end_that_answers_pings_is_kept() -> None:
    async with rig(look_s=0.02) as one:
        for _ in range(20):
            one.web_socket.give(PONG)
            await asyncio.sleep(0.02)

        assert one.tunnel.is_idle


async def test_a_paused_end_pings_and_gives_nobody_up() -> None:
    async with rig(look_s=0.01) as one:
        one.tunnel.attach(one.protocol)
        one.tunnel.pause_reading()
        await asyncio.sleep(0.2)

        assert not one.tunnel.is_closing()
        assert len(one.web_socket.of_kind(PING)) > 3


@pytest.mark.parametrize("code", [0, 1000])
async def test_a_close_in_good_order_is_no_error(code: int) -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        one.web_socket.give(CLOSE, code)
        await one.ended()

        assert one.protocol.ends == [None]


@pytest.mark.parametrize(("kind", "data"), [(CLOSE, 1009), (GONE, None), (1, "text")])
async def test_any_other_end_is_an_error(kind: int, data: Any) -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        one.web_socket.give(kind, data)
        await one.ended()

        assert [type(end) for end in one.protocol.ends] == [ConnectionResetError]


async def test_closing_sends_what_waits_and_aborting_does_not() -> None:
    async with rig() as closed, rig() as aborted:
        for one in (closed, aborted):
            one.tunnel.attach(one.protocol)
            one.tunnel.write(b"last")
        closed.tunnel.close()
        aborted.tunnel.abort()
        await closed.ended()
        await aborted.ended()

        assert closed.web_socket.of_kind(BINARY) == [b"last"]
        assert aborted.protocol.ends == closed.protocol.ends == [None]
        closed.tunnel.write(b"too late")
        assert closed.tunnel.get_write_buffer_size() == 0


async def test_bytes_that_come_after_closing_are_dropped() -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        one.web_socket.takes.clear()
        one.tunnel.write(b"last")
        one.tunnel.close()
        one.web_socket.give(BINARY, b"more")
        await one.settle()
        one.web_socket.takes.set()
        await one.ended()

        assert one.protocol.data == b""


async def test_an_abort_ends_a_tunnel_whose_other_end_does_not_read() -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        one.tunnel.pause_reading()
        one.web_socket.takes.clear()
        one.tunnel.write(bytes(1 << 20))
        await one.settle()
        one.tunnel.abort()
        await one.ended()

        assert one.protocol.ends == [None]


async def test_a_fault_of_sending_is_told() -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        one.web_socket.fault = ConnectionResetError("Cannot write")
        one.tunnel.write(b"x")
        await one.ended()

        assert [str(end) for end in one.protocol.ends] == ["Cannot write"]


async def test_a_cancelled_run_tells_its_protocol() -> None:
    async with rig() as one:
        one.tunnel.attach(one.protocol)
        one.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one.task

        assert [type(end) for end in one.protocol.ends] == [ConnectionResetError]


async def test_an_abort_before_the_run_ends_it_at_once() -> None:
    tunnel = TunnelTransport(FakeWebSocket())
    protocol = Recorder()
    tunnel.attach(protocol)
    tunnel.abort()
    await tunnel.run()

    assert protocol.ends == [None]


async def test_a_protocol_learns_the_peer_and_not_the_socket() -> None:
    async with rig() as one:
        assert one.tunnel.get_extra_info("peername") == ("192.0.2.1", 8000)
        assert one.tunnel.get_extra_info("socket") is None
        assert not one.tunnel.can_write_eof()
        with pytest.raises(RuntimeError, match="idle"):
            one.tunnel.get_protocol()
        one.tunnel.set_protocol(one.protocol)
        assert one.tunnel.get_protocol() is one.protocol


async def test_a_tunnel_whose_other_end_has_left_is_not_idle_for_a_moment() -> None:
    async with rig() as one:
        one.web_socket.give(CLOSE, 1000)
        while one.tunnel.is_idle:
            await asyncio.sleep(0)

        assert not one.task.done()


class CrashingProtocol(Recorder):
    """Fails at the first bytes."""

    def data_received(self, data: bytes) -> None:
        raise RuntimeError("a bug")


async def test_a_protocol_that_crashes_ends_the_tunnel_and_all_of_its_tasks() -> None:
    async with rig() as one:
        crashing = CrashingProtocol()
        one.tunnel.attach(crashing)
        one.web_socket.give(BINARY, b"x")
        with pytest.raises(RuntimeError, match="a bug"):
            await one.task

        assert len(crashing.ends) == 1
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not {"tunnel reads", "tunnel writes"} & names
