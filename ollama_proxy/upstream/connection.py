"""Carry one request at a time over one connection to an instance.

Bytes of a body go from `data_received` straight to a `Sink`, without a queue or a task
wake-up. While the sink is full the connection is not read, so a slow client never grows
our memory.
"""

import asyncio
import select
from collections.abc import AsyncIterator, Callable
from typing import Protocol, cast

from ollama_proxy.base.errors import InstanceLostError
from ollama_proxy.base.tasks import start_task
from ollama_proxy.base.timing import STANDARD
from ollama_proxy.core.http.chunks import framed, length_line
from ollama_proxy.upstream.response_parser import (
    ResponseError,
    ResponseHead,
    ResponseParser,
)

_READ_AHEAD = 64 * 1024
_SLICE = 256 * 1024


class Sink(Protocol):
    """Takes the body of an answer as it comes."""

    @property
    def is_chunked(self) -> bool:
        """Tell whether it can `write_chunk`."""

    def take(self, pieces: list[bytes]) -> bool:
        """Write pieces of the body; return True if it is full."""

    def write_chunk(self, chunk: bytes) -> bool:
        """Take one whole chunk, framed as on the wire; True if it is full."""

    async def room(self) -> None:
        """Wait until it is not full."""


class Connection(asyncio.Protocol):
    """Carries HTTP/1.1: `ask` sends a request, then the body can be read.

    ``gone``: called once it is closed, by either side. ``used``: it has carried a
    request before. ``idle_since`` and ``generation`` are set by the pool.
    """

    def __init__(
        self, gone: Callable[["Connection"], None], stale_s: float = STANDARD.stale_s
    ) -> None:
        self._stale_s = stale_s
        self.used = False
        self.idle_since = 0.0
        self.generation = 0
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._parser: ResponseParser | None = None
        self._sink: Sink | None = None
        self._write_chunk: Callable[[bytes], bool] | None = None
        self._is_full = False
        self._is_paused = False
        self._read_ahead = 0
        self._failure: Exception | None = None
        self._news: asyncio.Future[None] | None = None
        self._owes_body = False
        self._asked_at = 0.0
        self._upload: asyncio.Task[None] | None = None
        self._can_write: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport of the new connection."""
        self._transport = cast("asyncio.Transport", transport)  # or uvloop's

    def data_received(self, data: bytes) -> None:
        """Forward received bytes; every token passes here, so this is short."""
        # A read that is exactly one chunk bypasses llhttp: a chunk of that total length
        # can have only one length line, so comparing 3 to 10 bytes replaces parsing.
        # Ollama writes one chunk per token, so nearly every read of a stream takes this
        # path.
        write_chunk = self._write_chunk
        if (
            write_chunk is not None
            and data.startswith(length_line(len(data)))
            and data.endswith(b"\r\n")
        ):
            if write_chunk(data):
                self._is_full = True
                self._pause()
                self._tell()
            return
        parser = self._parser
        if parser is None:  # bytes outside of a response
            self.close()
            return
        sink = self._sink
        try:
            parser.feed(data)
        except ResponseError as error:
            self._fail(error)
            return
        self._pass_chunks(parser)
        if sink is None:
            self._keep(len(data))
        elif parser.pieces:
            self._is_full = sink.take(parser.pieces)
            parser.pieces.clear()
            if self._is_full:
                self._pause()
        if sink is None or self._is_full or parser.complete:
            self._tell()

    def _pass_chunks(self, parser: ResponseParser) -> None:
        """Let whole chunks pass unparsed, if the next byte begins a chunk."""
        sink = self._sink
        passes = sink is not None and sink.is_chunked and parser.between_chunks
        self._write_chunk = sink.write_chunk if sink is not None and passes else None

    def _keep(self, size: int) -> None:
        """Count unread bytes; pause reading beyond 64 KiB.

        The head does not count: it has a limit of its own, and is read completely.
        """
        if self._asked().head is None:
            return
        self._read_ahead += size
        if self._read_ahead > _READ_AHEAD:
            self._pause()

    def eof_received(self) -> bool:
        """Close the connection: a server that half-closes it sends nothing more.

        Abort instead of flushing: the server may never read the bytes in our send
        buffer.
        """
        self._note_end(None)
        self.close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that it is closed; some answers end so."""
        self._transport = None
        self._note_end(exc)
        self.resume_writing()
        self._gone(self)

    def _note_end(self, exc: Exception | None) -> None:
        """Wake the task that reads the answer: no more of it comes."""
        parser = self._parser
        if parser is not None and not parser.complete and self._failure is None:
            self._failure = exc or _end(parser)
        self._tell()

    def pause_writing(self) -> None:
        """Have an upload wait."""
        self._can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Have an upload go on."""
        if self._can_write is not None:
            if not self._can_write.done():
                self._can_write.set_result(None)
            self._can_write = None

    @property
    def is_open(self) -> bool:
        """Tell whether it can carry a request."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Tell whether there is nothing unread on the connection, not even its end.

        Unexpected bytes would be taken for the next response. The socket is polled here
        because the event loop reads it only later.
        """
        if self._transport is None or not self.is_open:
            return False
        bound = self._transport.get_extra_info("socket")
        poller = select.poll()  # select() is limited to descriptors below 1024
        poller.register(bound.fileno(), select.POLLIN)
        return not poller.poll(0)

    @property
    def was_stale(self) -> bool:
        """Tell whether a reused connection closed within 1 s without sending a byte.

        The peer had closed it already, so the request can be sent again. If it closes
        later, the instance may have begun to work.
        """
        loop = asyncio.get_running_loop()
        at_once = loop.time() - self._asked_at < self._stale_s
        return self.used and at_once and not self._asked().heard

    def close(self) -> None:
        """Close it at once; what waits to be sent is not sent."""
        if self._transport is not None:
            self._transport.abort()

    async def ask(
        self,
        method: str,
        head: bytes,
        payload: bytes | AsyncIterator[bytes] | None,
        *,
        chunked: bool,
        waits: bool,
    ) -> ResponseHead:
        """Send a request, and return the head of its response.

        A body that ``waits`` is sent when the instance sends ``100 Continue``. A
        streamed body is still being sent after this returns. Raises `ResponseError` or
        `OSError` if there is no response, and any error of reading the body.
        """
        parser = self._parser = ResponseParser(method)
        self._asked_at = asyncio.get_running_loop().time()
        if self._transport is None:
            raise ConnectionResetError("it is closed")
        self._owes_body = True
        if isinstance(payload, bytes) and len(payload) <= _SLICE and not waits:
            self._transport.write(head + payload if payload else head)
            payload = None
        else:
            self._transport.write(head)
        while parser.head is None:
            if payload is not None and (parser.invited or not waits):
                self._begin_upload(payload, chunked=chunked)
                payload = None
            if self._failure is None:
                await self._wait()
            if self._failure is not None and self._asked().head is None:
                raise self._failure
        self._owes_body = payload is not None
        return parser.head

    def _begin_upload(
        self, payload: bytes | AsyncIterator[bytes], *, chunked: bool
    ) -> None:
        parts = _slices(payload) if isinstance(payload, bytes) else payload
        upload = self._send_parts(parts, chunked=chunked)
        self._upload = start_task(upload, name="upload")

    async def _send_parts(self, parts: AsyncIterator[bytes], *, chunked: bool) -> None:
        """Send a body as it comes; one that is not whole ends the connection."""
        try:
            async for part in parts:
                if self._transport is None:
                    return
                if not part:
                    continue
                self._transport.write(framed(part) if chunked else part)
                if self._can_write is not None:
                    await self._can_write
            if chunked and self._transport is not None:
                self._transport.write(b"0\r\n\r\n")
        except Exception as error:
            self._fail(error)

    async def pour(self, sink: Sink) -> None:
        """Pass the body to a sink, to its end.

        Raises `InstanceLostError` if it is not complete.
        """
        parser = self._asked()
        is_full = bool(parser.pieces) and sink.take(parser.pieces)
        parser.pieces.clear()
        self._sink, self._is_full = sink, is_full
        self._pass_chunks(parser)
        while self._is_full or not parser.complete:
            if self._is_full:
                await sink.room()
                self._is_full = False
            elif self._failure is not None:
                raise _lost(self._failure)
            else:
                self._resume()
                await self._wait()

    def whole(self, most: int) -> bytes | None:
        """Return the body if all of it is here and it is at most so many bytes."""
        parser = self._asked()
        size = sum(map(len, parser.pieces))
        if not parser.complete or size > most:
            return None
        body = b"".join(parser.pieces)
        parser.pieces.clear()
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, chunk by chunk.

        Raises `InstanceLostError` if it is not complete.
        """
        parser = self._asked()
        while True:
            pieces = parser.pieces.copy()
            parser.pieces.clear()
            self._read_ahead = 0
            for piece in pieces:
                yield piece
            if parser.pieces:
                continue
            if parser.complete:
                return
            if self._failure is not None:
                raise _lost(self._failure)
            self._resume()
            await self._wait()

    async def end(self) -> bool:
        """End the exchange; True if the connection can carry another request."""
        parser = self._asked()
        upload, self._upload = self._upload, None
        is_sent = not self._owes_body and (upload is None or upload.done())
        reusable = is_sent and parser.reusable and not parser.pieces
        has_failed, self._failure = self._failure is not None, None
        parser.close()
        self._sink = self._parser = self._write_chunk = None
        self.used = True
        if not reusable or has_failed or not self.is_open:
            self.close()
            if upload is not None and not upload.done():
                upload.cancel()
                await asyncio.wait({upload})
            return False
        self._read_ahead = 0
        self._resume()
        return True

    async def drop(self) -> None:
        """Close it in the middle of an exchange."""
        self.close()
        await self.end()

    def _asked(self) -> ResponseParser:
        assert self._parser is not None  # noqa: S101 - `ask` came first
        return self._parser

    async def _wait(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._news
        finally:
            self._news = None

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        self.close()
        self._tell()

    def _pause(self) -> None:
        if not self._is_paused and self.is_open and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            if self.is_open and self._transport is not None:
                self._transport.resume_reading()


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), _SLICE):
        yield body[at : at + _SLICE]


def _end(parser: ResponseParser) -> ResponseError | None:
    """Return what is wrong with an answer that ends now."""
    try:
        parser.end()
    except ResponseError as error:
        return error
    return None


def _lost(failure: Exception) -> InstanceLostError:
    error = InstanceLostError(str(failure) or type(failure).__name__)
    error.__cause__ = failure
    return error
