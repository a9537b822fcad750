"""Write the body of an answer of Ollama to the hub's connection, as it arrives."""

import asyncio

from aiohttp import web

from ollama_proxy.base.tasks import cancel_and_wait, start_task
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.node.relayed_body import StalledError


class HubWriter:
    """Takes a body as `upstream.sink.Sink` has it: chunks pass as they are.

    aiohttp's own ``write`` would cost a coroutine and a new frame for each token.
    ``stall_s``: how long the hub may take nothing.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        *,
        stall_s: float,
    ) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the hub has gone")
        self._request, self._stall_s = request, stall_s
        self._write = transport.write
        self._queued = transport.get_write_buffer_size
        self._is_closing = transport.is_closing
        self._most = transport.get_write_buffer_limits()[1]
        self.is_chunked = response.headers.get("Transfer-Encoding") == "chunked"

    def write_chunk(self, chunk: bytes) -> bool:
        """Write a chunk as received; True if the hub is too slow for more."""
        # True for a closing connection: the caller waits in `room`, which raises.
        if self._is_closing():
            return True
        self._write(chunk)
        return self._queued() > self._most

    def take(self, pieces: list[bytes]) -> bool:
        """Write pieces; True if the hub is too slow for more."""
        if self._is_closing():
            return True
        # An empty piece would be framed as "0 CRLF CRLF", which ends the body.
        written = [
            framed(piece) if self.is_chunked else piece for piece in pieces if piece
        ]
        if written:
            self._write(b"".join(written))
        return self._queued() > self._most

    async def room(self) -> None:
        """Wait until a slow hub has read. Raises for one that has gone or stalls."""
        # `drain` is not cancelled while the hub is slow: aiohttp shares its waiter
        # with the next drain, which would then return too early.
        left = self._queued()
        draining = start_task(self._request.writer.drain(), name="drain")
        try:
            while not (await asyncio.wait({draining}, timeout=self._stall_s))[0]:
                before, left = left, self._queued()
                if left >= before:
                    raise StalledError("the hub takes nothing more")
            draining.result()
        finally:
            await cancel_and_wait(draining)
        if self._is_closing():
            raise ConnectionResetError("the hub has gone")
