"""Receive the answer to one request at a time, over one connection to an instance.

Bytes of a body go from `data_received` straight to a `Sink`: no queue, and no task
wakes for them. While the sink is full, the connection is not read, so a slow client
never grows our memory.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

from ollama_proxy.base.errors import InstanceLostError
from ollama_proxy.core.http.chunks import length_line
from ollama_proxy.upstream.response_parser import (
    ResponseError,
    ResponseParser,
)
from ollama_proxy.upstream.sink import Sink
from ollama_proxy.upstream.upload import WriteGate

_READ_AHEAD = 64 * 1024


class ResponseStream(asyncio.Protocol):
    """Hands the body of an answer on: to a sink, or as chunks, or whole."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: ResponseParser | None = None
        self._sink: Sink | None = None
        self._write_chunk: Callable[[bytes], bool] | None = None
        self._is_full = False
        self._is_paused = False
        self._read_ahead = 0
        self._failure: Exception | None = None
        self._news: asyncio.Future[None] | None = None
        self._write_gate = WriteGate()

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
        """Handle the end of the connection, which also ends some responses."""
        self._transport = None
        self._note_end(exc)
        self.resume_writing()

    def _note_end(self, exc: Exception | None) -> None:
        """Wake the task that reads the answer: no more of it comes."""
        parser = self._parser
        if parser is not None and not parser.complete and self._failure is None:
            self._failure = exc or _end(parser)
        self._tell()

    def pause_writing(self) -> None:
        """Have an upload wait."""
        self._write_gate.close()

    def resume_writing(self) -> None:
        """Have an upload go on."""
        self._write_gate.open()

    @property
    def is_open(self) -> bool:
        """Tell whether it can carry a request."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Close it at once; what waits to be sent is not sent."""
        if self._transport is not None:
            self._transport.abort()

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

    async def begun(self) -> None:
        """Wait for the first byte of the body, or for its end; it stays to be read.

        Raises `InstanceLostError` if neither comes.
        """
        parser = self._asked()
        while not (parser.pieces or parser.complete):
            if self._failure is not None:
                raise _lost(self._failure)
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

    def _asked(self) -> ResponseParser:
        assert self._parser is not None  # noqa: S101 - after `ask`
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


def _end(parser: ResponseParser) -> ResponseError | None:
    """Return the error of a response that ends now."""
    try:
        parser.end()
    except ResponseError as error:
        return error
    return None


def _lost(failure: Exception) -> InstanceLostError:
    error = InstanceLostError(str(failure) or type(failure).__name__)
    error.__cause__ = failure
    return error
