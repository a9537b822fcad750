"""Write the body of an answer to a client's connection, whichever server has it."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Protocol

from multidict import CIMultiDictProxy

from ollama_proxy.base.tasks import start_task
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.core.ollama.activity import UseWatch


class Head(Protocol):
    """Gives status line and headers of an answer."""

    @property
    def status(self) -> int:
        """Return the status."""

    @property
    def reason(self) -> str | None:
        """Return the words after the status."""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """Return the headers as received."""


class Writer(Protocol):
    """Writes to a client's connection."""

    async def drain(self) -> None:
        """Wait until most of the written bytes are sent."""


class OnTransport(Protocol):
    """Has a transport: a request over a connection."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """Return the connection; None if it is closed."""


class Asked(Protocol):
    """Describes a client's request, as far as its answer has to know it."""

    @property
    def method(self) -> str:
        """Return the method."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """Return the client's connection; None if it is closed."""

    @property
    def writer(self) -> Writer:
        """Return how to wait for the client."""


class StartedResponse(Protocol):
    """Writes a response whose head was sent."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Return its headers; names are found in any case."""

    async def write(self, data: bytes) -> None:
        """Send more of its body."""

    async def write_eof(self) -> None:
        """End its body."""


def reset(request: OnTransport) -> None:
    """Abort with a TCP RST: some clients take an orderly close for a whole answer."""
    transport = request.transport
    if transport is None:
        return
    bound = transport.get_extra_info("socket")
    if bound is not None:
        # SO_LINGER on with 0 s: close() drops unsent bytes and sends RST instead of
        # FIN.
        at_once = struct.pack("ii", 1, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    transport.abort()


class ClientWriter:
    """Writes a response's body to the client's connection, framed as its head says.

    It replaces ``StreamResponse.write``, which starts a task for each token and handles
    kinds of bodies that do not occur here. Until it is settled whether the response
    counts as use, every chunk is read; afterwards chunks pass unread if ``is_chunked``.
    """

    def __init__(
        self,
        request: Asked,
        response: StartedResponse,
        touch: Callable[[], None],
        use: UseWatch,
        stall_s: float,
    ) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        self._last = b"\n"
        self._last_chunk: bytes | None = None
        self._request = request
        self._touch = touch
        self._use = use
        self._stall_s = stall_s
        self._write = transport.write
        self._queued = transport.get_write_buffer_size
        self._is_closing = transport.is_closing
        self._most = transport.get_write_buffer_limits()[1]
        self._frames = response.headers.get("Transfer-Encoding") == "chunked"
        self._is_watched = not use.is_settled
        self.is_chunked = self._frames and not self._is_watched

    @property
    def last(self) -> bytes:
        """Return the last piece of the body."""
        return self._last if self._last_chunk is None else self._last_chunk[:-2]

    def write_chunk(self, chunk: bytes) -> bool:
        """Write a chunk as received; True if the client is too slow for more."""
        # True for a closing connection: the caller waits in `room`, which raises.
        if self._is_closing():
            return True
        self._touch()
        self._last_chunk = chunk
        self._write(chunk)
        return self._queued() > self._most

    def take(self, pieces: list[bytes]) -> bool:
        """Write the pieces; return True if the client is too slow for more."""
        if self._is_watched:
            self._watch(pieces)
        if self._is_closing():
            return True
        self._touch()
        # An empty piece would be framed as "0 CRLF CRLF", which ends the body.
        pieces = [piece for piece in pieces if piece]
        if not pieces:
            return False
        self._last, self._last_chunk = pieces[-1], None
        if self._frames:
            pieces = [framed(piece) for piece in pieces]
        self._write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return self._queued() > self._most

    def _watch(self, pieces: list[bytes]) -> None:
        """Inspect the beginning of the body until it shows whether it is use."""
        for piece in pieces:
            self._use.take(piece)
        if self._use.is_settled:
            self._is_watched, self.is_chunked = False, self._frames

    async def room(self) -> None:
        """Wait until a slow client has read; reset one that reads nothing.

        Do not cancel `drain()` while the client is slow: aiohttp shares its waiter with
        the next drain, which would then return too early.
        """
        left = self._queued()
        draining = start_task(self._request.writer.drain(), name="drain")
        try:
            while not (await asyncio.wait({draining}, timeout=self._stall_s))[0]:
                before, left = left, self._queued()
                if left >= before:
                    reset(self._request)
                    raise ConnectionResetError("the client takes nothing")
            draining.result()
        finally:
            draining.cancel()
        if self._is_closing():
            raise ConnectionResetError("the client has gone")
