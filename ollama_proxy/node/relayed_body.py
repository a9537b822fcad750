"""Read the body of the hub's request as it arrives, for the machine's Ollama."""

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import HttpVersion11, web

_SMALL = 64 * 1024


class StalledError(ConnectionError):
    """Reports a hub that sends or takes nothing for long."""


class RelayedBody:
    """Provides a body as `upstream.request.Body` has it, without holding it.

    A small one is kept, so that it can be sent twice; of all others at most a buffer
    of the connection is here. ``stall_s``: how long the hub may send nothing.
    """

    def __init__(self, request: web.BaseRequest, *, stall_s: float) -> None:
        self._request, self._stall_s = request, stall_s
        self._head = b""
        self._is_chunked = "Transfer-Encoding" in request.headers
        self._is_invited = not _waits(request)
        self.complete = not request.can_read_body
        self.on_invited: Callable[[], None] | None = None

    @property
    def expects(self) -> bool:
        """Tell whether the hub sends it only once it is invited."""
        return not self._is_invited and not self.complete

    async def keep_small(self) -> None:
        """Read a body of at most 64 KiB, unless the hub waits to be invited."""
        length = self._request.content_length
        if self.complete or self.expects or length is None or length > _SMALL:
            return
        parts = []
        while data := await self._next():
            parts.append(data)
        self._head, self.complete = b"".join(parts), True

    async def invite(self) -> None:
        """Have the hub send it, once."""
        if not self.expects:
            return
        self._is_invited = True
        if self.on_invited is not None:
            self.on_invited()
        await invite(self._request)

    def payload(self) -> bytes | AsyncIterator[bytes] | None:
        """Return the bytes, or the parts as they arrive."""
        if not self._request.body_exists:
            return None
        if self.complete and not self._is_chunked:
            return self._head
        return self._parts()

    async def _parts(self) -> AsyncIterator[bytes]:
        if self._head:
            yield self._head
        if not self.complete:
            await self.invite()
            while data := await self._next():
                yield data

    async def _next(self) -> bytes:
        content = self._request.content
        if content.is_eof():
            return content.read_nowait()
        try:
            async with asyncio.timeout(self._stall_s):
                return await content.readany()
        except TimeoutError as error:
            raise StalledError("the hub sends nothing more") from error


async def invite(request: web.BaseRequest) -> None:
    """Send ``100 Continue`` to a hub that waits for it."""
    if _waits(request):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def _waits(request: web.BaseRequest) -> bool:
    expects = request.headers.get("Expect", "").lower() == "100-continue"
    return expects and request.version >= HttpVersion11
