"""Serve paced streams, behind every proxy, whose tokens say when they left.

Each token carries the monotonic clock of its sending, which every process of this
machine shares. A prompt says how many tokens are wanted, and how many a second.
Run as a process of its own: ``python -m bench.upstream PORT``.
"""

import asyncio
import json
import sys
import time
from typing import cast

import httptools
import uvloop

_LINE = (
    b'{"model":"bench","created_at":"2026-01-01T00:00:00.000000Z",'
    b'"response":" t=%d","done":false}\n'
)
_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,'
    b'"model":"bench","choices":[{"index":0,"delta":{"content":" t=%d"},'
    b'"finish_reason":null}]}\n\n'
)
_LAST = _LINE.replace(b"false", b"true")
_DONE = b"data: [DONE]\n\n"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
_VERSION = b'{"version":"0.0.0-bench"}'
_TAGS = b'{"models":[]}'
_SMALL = (
    b'{"model":"bench","embeddings":[[0.010071,0.0017594,0.05007]],"total_duration":1,'
    b'"load_duration":1,"prompt_eval_count":8}'
)
_KEPT = 64 * 1024
_PIECE = b"x" * (256 * 1024)

Pace = tuple[int, float]
"""How many tokens, and seconds between two."""


class Upstream(asyncio.Protocol):
    """Serves one connection in plain HTTP/1.1, with as little work as can be."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._path = b""
        self._body = bytearray()
        self._taken = 0
        self._is_sse = False
        self._timer: asyncio.TimerHandle | None = None
        self._long_left = 0
        self._may_write = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Send nothing more."""
        del exc
        self._long_left = 0
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Begin a request."""
        self._path = url
        self._body.clear()
        self._taken = 0

    def on_body(self, data: bytes) -> None:
        """Count a body; keep a small one."""
        self._taken += len(data)
        if self._taken <= _KEPT:
            self._body += data

    def on_message_complete(self) -> None:
        """Answer."""
        match self._path:
            case b"/api/generate":
                self._begin(json.loads(self._body)["prompt"], b"application/x-ndjson")
            case b"/v1/chat/completions":
                prompt = json.loads(self._body)["messages"][-1]["content"]
                self._begin(prompt, b"text/event-stream")
            case b"/api/version":
                self._answer(_VERSION)
            case b"/api/tags":
                self._answer(_TAGS)
            case b"/api/embed":
                self._answer(_SMALL)
            case path if path.startswith(b"/long/"):
                self._long_left = int(path[6:])
                length = b"Content-Length: %d\r\n\r\n" % self._long_left
                self._transport.write(_HEAD + length)
                self._send_long()
            case _:
                self._answer(b'{"taken":%d}' % self._taken)

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        self._transport.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def _begin(self, prompt: str, kind: bytes) -> None:
        count, rate = prompt.split()
        self._is_sse = kind == b"text/event-stream"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n" % kind
        self._transport.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        self._tokens((int(count), 1 / float(rate)), self._loop.time())

    def _tokens(self, pace: Pace, due: float) -> None:
        """Send a token, and see to the next; late ones do not shift the others."""
        left, pause_s = pace
        stamp = time.monotonic_ns()
        plain = _LAST if left == 1 else _LINE
        line = (_EVENT if self._is_sse else plain) % stamp
        if left == 1 and self._is_sse:
            line += _DONE
        end = b"0\r\n\r\n" if left == 1 else b""
        self._transport.write(b"%x\r\n%b\r\n%b" % (len(line), line, end))
        if left > 1:
            due += pause_s
            self._timer = self._loop.call_at(
                due, self._tokens, (left - 1, pause_s), due
            )

    def pause_writing(self) -> None:
        """Stop a long answer."""
        self._may_write = False

    def resume_writing(self) -> None:
        """Go on with it."""
        self._may_write = True
        self._send_long()

    def _send_long(self) -> None:
        while self._long_left and self._may_write:
            piece = _PIECE[: self._long_left]
            self._long_left -= len(piece)
            self._transport.write(piece)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=16384)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
