"""Carry one request at a time over one connection to an instance."""

import asyncio
import select
from collections.abc import AsyncIterator, Callable

from ollama_proxy.base.tasks import start_task
from ollama_proxy.base.timing import STANDARD
from ollama_proxy.upstream.response_parser import ResponseHead, ResponseParser
from ollama_proxy.upstream.response_stream import ResponseStream
from ollama_proxy.upstream.upload import send_parts, slices

_SLICE = 256 * 1024


class Connection(ResponseStream):
    """Carries HTTP/1.1: `ask` sends a request, then the body can be read.

    ``gone``: called once it is closed, by either side. ``used``: it has carried a
    request before. ``idle_since`` and ``generation`` are set by the pool.
    """

    def __init__(
        self, gone: Callable[["Connection"], None], stale_s: float = STANDARD.stale_s
    ) -> None:
        super().__init__()
        self._stale_s = stale_s
        self.used = False
        self.idle_since = 0.0
        self.generation = 0
        self._gone = gone
        self._owes_body = False
        self._asked_at = 0.0
        self._upload: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Do as for any answer, and tell the pool."""
        super().connection_lost(exc)
        self._gone(self)

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
        if self._transport is None:  # lost since the head was sent
            return
        parts = slices(payload, _SLICE) if isinstance(payload, bytes) else payload
        upload = self._send(parts, self._transport, chunked=chunked)
        self._upload = start_task(upload, name="upload")

    async def _send(
        self,
        parts: AsyncIterator[bytes],
        transport: asyncio.Transport,
        *,
        chunked: bool,
    ) -> None:
        """Send a body as it arrives; an incomplete one ends the connection."""
        try:
            await send_parts(parts, transport, self._write_gate, chunked=chunked)
        except Exception as error:
            self._fail(error)

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
