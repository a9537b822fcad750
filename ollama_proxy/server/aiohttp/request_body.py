"""Read a client's body: into memory if it is small, relayed as it arrives if not.

A body in memory can be parsed, held while an instance starts, and sent a second time.
One budget bounds the memory of all bodies.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import HttpVersion11, web

from ollama_proxy.core.http.compression import encoding_of
from ollama_proxy.serving.body_budget import HELD_BODY, SMALL_BODY, BodyBudget
from ollama_proxy.serving.client_writer import reset


class RequestBody:
    """Reads the body of one request. `close` returns its share of the budget."""

    def __init__(
        self, request: web.BaseRequest, budget: BodyBudget, *, stall_s: float
    ) -> None:
        self._request = request
        self._stall_s = stall_s
        self._budget = budget
        self._taken = 0
        self._overdrawn = False
        self._head = b""
        self._chunked = "Transfer-Encoding" in request.headers
        expects = request.headers.get("Expect", "").lower() == "100-continue"
        self._invited = not expects or request.version < HttpVersion11
        self.complete = not request.can_read_body
        self.on_invited: Callable[[], None] | None = None

    @property
    def head(self) -> bytes:
        """Return the part that was read into memory so far."""
        return self._head

    @property
    def encoding(self) -> str:
        """Return how it is compressed, say; empty if it is not."""
        return encoding_of(self._request.headers)

    @property
    def expects(self) -> bool:
        """Tell whether the client sends the body only once it is invited."""
        return not self._invited and not self.complete

    @property
    def is_small(self) -> bool:
        """Tell whether the length is known, and small enough to be kept in any case."""
        length = self._request.content_length
        return length is not None and length <= SMALL_BODY

    async def keep_small(self, *, is_json: bool = False) -> None:
        """Read a small body into memory, so that it can be sent twice.

        A body that waits for ``100 Continue`` is left for the instance to invite. JSON
        of unknown length is read up to the size of a small body, which delays nothing:
        no instance acts on half of it.
        """
        may_be_small = self.is_small or (
            is_json and self._request.content_length is None
        )
        if may_be_small and not self.complete and not self.expects:
            await self.keep(SMALL_BODY)

    async def keep(self, most: int = HELD_BODY) -> bool:
        """Read the body into memory as far as limits allow; True if that is all."""
        length = self._request.content_length
        if length is None or length <= HELD_BODY:
            await self._keep(most)
        return self.complete

    async def seek(self, is_seen: Callable[[bytes], bool], most: int) -> None:
        """Read until a search finds something, or more than ``most`` bytes are read.

        The search runs after the first piece, and each time the size has doubled.
        """
        while not (self.complete or self._overdrawn or len(self._head) > most):
            await self._keep(min(2 * len(self._head), most))
            if is_seen(self._head):
                return

    async def _keep(self, most: int) -> None:
        """Read until more than ``most`` bytes are in memory, or that is all."""
        if self.complete or self._overdrawn:
            return
        if self.expects:
            await self.invite()
        parts = [self._head]
        size = len(self._head)
        content = self._request.content
        while not self.complete and size <= most:
            data = content.read_nowait() if content.is_eof() else await self._next()
            parts.append(data)
            size += len(data)
            if not self._budget.take(len(data)):
                self._overdrawn = True
                break
            self._taken += len(data)
            self.complete = content.at_eof()
        self._head = b"".join(parts)

    async def invite(self) -> None:
        """Send ``100 Continue`` to a client that waits for it, once."""
        if self.expects:
            self._invited = True
            if self.on_invited is not None:
                self.on_invited()
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._request.writer.output_size = 0

    async def _next(self) -> bytes:
        """Read received bytes; reset a client that sends nothing for long."""
        try:
            async with asyncio.timeout(self._stall_s):
                return await self._request.content.readany()
        except TimeoutError as error:
            reset(self._request)
            raise ConnectionResetError("the client sends nothing") from error

    def rewrite(self, data: bytes) -> None:
        """Have other bytes sent in place of a body that is complete."""
        self._head, self._chunked = data, False

    def payload(self) -> bytes | AsyncIterator[bytes] | None:
        """Return the body to send, framed as received."""
        if not self._request.body_exists:
            return None
        if self.complete and not self._chunked:
            return self._head
        return self._parts()

    async def _parts(self) -> AsyncIterator[bytes]:
        if self._head:
            yield self._head
        if not self.complete:
            await self.invite()
            while data := await self._next():
                yield data

    def close(self) -> None:
        """Return the share of the budget."""
        self._budget.give_back(self._taken)
        self._taken = 0


async def invite_later(_request: web.Request) -> None:
    """Answer ``Expect`` not yet: `RequestBody` does when it begins to read."""
