"""Write as the simulator does: Go's JSON, one flush per piece, faults on the way."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from aiohttp import HttpVersion11, web

from ollama_proxy.simulator.faults import Faults

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"


def go_json(value: object) -> bytes:
    """Encode as Go does: no spaces, and ``<>&`` escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character, escape in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(character, escape)
    return text.encode()


def reply(value: object, status: int = 200, *, native: bool = True) -> web.Response:
    """Return one JSON answer; only native routes name a charset."""
    kind = "application/json; charset=utf-8" if native else "application/json"
    body = go_json(value) + (b"" if native else b"\n")
    return web.Response(status=status, body=body, headers={"Content-Type": kind})


def sse(value: object, name: str | None = None) -> bytes:
    """Return one server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + go_json(value) + b"\n\n"


class Stream:
    """Streams an answer. Its headers leave together with the first piece."""

    def __init__(self, request: web.Request, kind: str, faults: Faults) -> None:
        self._request = request
        self._faults = faults
        self._sent = 0
        self.ended = False
        self.response = web.StreamResponse(headers={"Content-Type": kind})
        if request.path in {"/v1/messages", "/v1/responses"}:
            self.response.headers["Cache-Control"] = "no-cache"
            if request.keep_alive:
                self.response.headers["Connection"] = "keep-alive"
        if request.version < HttpVersion11:
            self.response.force_close()

    async def send(self, piece: bytes) -> None:
        """Write one piece as one chunk, or misbehave as asked."""
        if not self.ended:
            await self._misbehave()
        if self.ended:
            return
        if not self.response.prepared:
            await self.response.prepare(self._request)
        await self.response.write(piece)
        self._sent += 1

    async def _misbehave(self) -> None:
        if self._sent == self._faults.reset_after:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the simulator was told to reset")
        if self._sent == self._faults.stall_after:
            await asyncio.Event().wait()
        if self._sent == self._faults.error_after:
            await self.response.write(go_json({"error": "simulated failure"}) + b"\n")
            self.ended = True
        if self._sent == self._faults.end_after:
            self.ended = True

    async def line(self, value: object) -> None:
        """Write one line of NDJSON."""
        await self.send(go_json(value) + b"\n")

    async def event(self, value: object, name: str | None = None) -> None:
        """Write one server-sent event."""
        await self.send(sse(value, name))

    async def end(self) -> web.StreamResponse:
        """End the answer cleanly."""
        if not self.response.prepared:
            await self.response.prepare(self._request)
        await self.response.write_eof()
        return self.response


async def stream_lines(
    request: web.Request, faults: Faults, lines: Iterable[tuple[float, dict[str, Any]]]
) -> web.StreamResponse:
    """Write progress: each line after its pause in seconds."""
    stream = Stream(request, NDJSON, faults)
    for pause_s, line in lines:
        await asyncio.sleep(pause_s)
        await stream.line(line)
    return await stream.end()
