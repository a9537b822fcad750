"""Carry the bytes of one HTTP connection over one WebSocket, in both directions.

Either end of a tunnel has one of these: to what speaks HTTP it is a transport like that
of a socket. TCP below the WebSocket is the back-pressure: what is paused is not read,
and then the other end can't send.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from ollama_proxy.base.tasks import scoped_task

MOST_FRAME = 64 * 1024
"""Bytes of the largest frame that is sent; double this length is refused."""

LOOK_S = 10.0
"""Seconds between two looks whether the other end is there."""

_MOST_WAITING = 64 * 1024
_LOOKS_PER_PING = 2
_MOST_QUIET_LOOKS = 3

# RFC 6455 §5.2 (opcodes) and §7.4.1 (a close in good order)
_BINARY = 0x2
_CLOSE = 0x8
_PING = 0x9
_PONG = 0xA
_CLOSED_WELL = frozenset({0, 1000})


class Message(Protocol):
    """Describes a message of a WebSocket: its opcode, and what it holds."""

    @property
    def type(self) -> int:
        """Return the opcode; another number if the WebSocket has ended."""

    @property
    def data(self) -> Any:
        """Return the bytes, or the code of a close."""


class WebSocket(Protocol):
    """Sends and receives messages, as both WebSockets of aiohttp do."""

    async def receive(self) -> Message:
        """Return the next message."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message; waits while the other end does not read."""

    async def ping(self, message: bytes = b"") -> None:
        """Send a ping."""

    async def pong(self, message: bytes = b"") -> None:
        """Send a pong."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the socket below."""


class TunnelTransport(asyncio.Transport):
    """Serves as one end of a tunnel. Its owner runs `run`, then closes the WebSocket.

    It is idle until a protocol is attached. ``enter`` makes the protocol when the first
    bytes arrive; without it, bytes that arrive before `attach` end the tunnel.

    Both ends send a ping every 20 s: a proxy between them sees traffic, and an end that
    reads, and was sent nothing for 30 to 40 s, knows that the other end is gone. One
    that is paused can't know, and needs not: it sends its own pings all the same.
    """

    def __init__(
        self,
        web_socket: WebSocket,
        enter: Callable[[], asyncio.Protocol] | None = None,
        *,
        look_s: float = LOOK_S,
    ) -> None:
        super().__init__()
        self._web_socket, self._enter, self._look_s = web_socket, enter, look_s
        self._protocol: asyncio.Protocol | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_size = 0
        self._is_full = False
        self._is_closing = False
        self._ping_due = False
        self._pong_due: bytes | None = None
        self._looks = self._quiet_looks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._to_write = asyncio.Event()
        self._to_read = asyncio.Event()
        self._to_read.set()
        self._ended = asyncio.Event()

    @property
    def was_used(self) -> bool:
        """Tell whether it carries, or carried, a connection."""
        return self._protocol is not None

    @property
    def is_idle(self) -> bool:
        """Tell whether a connection can be attached."""
        return self._protocol is None and not self._is_closing

    def attach(self, protocol: asyncio.Protocol) -> None:
        """Begin a connection: its bytes go to this protocol."""
        self._protocol = protocol
        protocol.connection_made(self)

    async def run(self) -> None:
        """Carry bytes until an end closes; then tell the protocol."""
        try:
            async with (
                scoped_task(self._read(), name="tunnel reads") as reading,
                scoped_task(self._write(), name="tunnel writes") as writing,
            ):
                for task in (reading, writing):
                    task.add_done_callback(lambda _: self._ended.set())
                self._look()
                await self._ended.wait()
        except asyncio.CancelledError:
            self._error = ConnectionResetError("the tunnel was cut")
            raise
        finally:
            self._is_closing = True
            if self._timer is not None:
                self._timer.cancel()
            self._waiting.clear()
            if self._protocol is not None:
                self._protocol.connection_lost(self._error)

    async def _read(self) -> None:
        try:
            while await self._receive():
                pass
        except OSError as error:
            self._error = error
        finally:
            self._is_closing = True  # at once: no request may be attached any more

    async def _receive(self) -> bool:
        """Handle one message; False if it was the last."""
        message = await self._web_socket.receive()
        self._quiet_looks = 0
        kind = message.type
        if kind == _BINARY:
            await self._to_read.wait()
            return self._pass(message.data)
        if kind == _PING:
            self._pong_due = message.data
            self._to_write.set()
            return True
        if kind == _PONG:
            return True
        if kind != _CLOSE or message.data not in _CLOSED_WELL:
            self._error = ConnectionResetError("the tunnel broke")
        return False

    def _pass(self, data: bytes) -> bool:
        """Hand bytes to the protocol; False if there is none to take them."""
        if self._protocol is None:
            if self._enter is None or self._is_closing:
                return False
            self.attach(self._enter())
        if data and not self._is_closing and self._protocol is not None:
            self._protocol.data_received(data)
        return True

    async def _write(self) -> None:
        try:
            while not self._is_closing or self._waiting:
                await self._send()
        except OSError as error:
            self._error = self._error or error

    async def _send(self) -> None:
        """Send what is due, or wait until something is."""
        if self._pong_due is not None:
            data, self._pong_due = self._pong_due, None
            await self._web_socket.pong(data)
        elif self._ping_due:
            self._ping_due = False
            await self._web_socket.ping()
        elif self._waiting:
            frame = self._next_frame()
            await self._web_socket.send_bytes(frame)
            self._note_sent(len(frame))
        else:
            self._to_write.clear()
            await self._to_write.wait()

    def _next_frame(self) -> bytes:
        """Take what waits, as far as it fits into one frame."""
        frame = self._waiting.popleft()
        if len(frame) > MOST_FRAME:
            self._waiting.appendleft(frame[MOST_FRAME:])
            return frame[:MOST_FRAME]
        if not self._waiting:
            return frame
        parts, size = [frame], len(frame)
        while self._waiting and size + len(self._waiting[0]) <= MOST_FRAME:
            parts.append(self._waiting.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def _note_sent(self, size: int) -> None:
        self._waiting_size -= size
        if self._is_full and self._waiting_size <= _MOST_WAITING // 2:
            self._is_full = False
            if self._protocol is not None:
                self._protocol.resume_writing()

    def _look(self) -> None:
        """Send a ping every 20 s, and end a tunnel that is silent."""
        self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look)
        self._looks += 1
        if self._looks % _LOOKS_PER_PING == 0:
            self._ping_due = True
            self._to_write.set()
        self._quiet_looks = self._quiet_looks + 1 if self._to_read.is_set() else 0
        # The first look is at the start.
        if self._quiet_looks > _MOST_QUIET_LOOKS + 1:
            silent_s = _MOST_QUIET_LOOKS * self._look_s
            self._error = TimeoutError(
                f"the other end of the tunnel sent nothing for {silent_s:g} s"
            )
            self.abort()

    # What a protocol asks of its transport:

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; the protocol is paused while more than 64 KiB wait."""
        if self._is_closing or not data:
            return
        self._waiting.append(bytes(data))
        self._waiting_size += len(data)
        if self._waiting_size > _MOST_WAITING and not self._is_full:
            self._is_full = True
            if self._protocol is not None:
                self._protocol.pause_writing()
        self._to_write.set()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return self._waiting_size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return at how many bytes a held protocol goes on, and above how many not."""
        return _MOST_WAITING // 2, _MOST_WAITING

    def can_write_eof(self) -> bool:
        """Return False: only both directions can be closed."""
        return False

    def is_closing(self) -> bool:
        """Tell whether it is closed, or about to be."""
        return self._is_closing

    def is_reading(self) -> bool:
        """Tell whether reading is not paused."""
        return self._to_read.is_set() and not self._is_closing

    def pause_reading(self) -> None:
        """Hand nothing on for now; at most one message is read."""
        self._to_read.clear()

    def resume_reading(self) -> None:
        """Read again."""
        self._to_read.set()

    def close(self) -> None:
        """End the tunnel once everything that waits is sent."""
        self._is_closing = True
        self._to_write.set()

    def abort(self) -> None:
        """End the tunnel at once."""
        self._is_closing = True
        self._ended.set()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand bytes to another protocol from now on."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol; raises `RuntimeError` while there is none."""
        if self._protocol is None:
            raise RuntimeError("the tunnel is idle")
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the addresses of the socket below; never the socket itself.

        Its owner is the WebSocket, so nothing else may set its options.
        """
        if name in {"peername", "sockname"}:
            return self._web_socket.get_extra_info(name, default)
        return default
