"""Generate load on connections, with as little work per byte as Python can do.

Answers are not parsed for their own sake: stamps are picked out of streams, small
answers are counted by their length. A body's end is checked to the byte.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self, cast

_STAMP = re.compile(rb' t=(\d+)"')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_SHOWN_BYTES = 64

Samples = list[int]
"""Nanoseconds, one number per token or request."""


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a request of JSON."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str) -> bytes:
    """Return a request without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


class Stream(asyncio.Protocol):
    """Reads a stream; records the latency of each token, and the time of the first.

    ``done`` is set when the answer is whole, and has the number of tokens.
    """

    def __init__(self, request: bytes, samples: Samples) -> None:
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.first_ns = 0
        self._request = request
        self._samples = samples
        self._rest = b""
        self._count = 0
        self._sent_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._sent_ns = time.monotonic_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take the time of each token in received bytes."""
        now = time.monotonic_ns()
        if self._rest:
            data = self._rest + data
        end = 0
        for match in _STAMP.finditer(data):
            end = match.end()
            self._samples.append(now - int(match[1]))
            self._count += 1
        if self._count and not self.first_ns:
            self.first_ns = now - self._sent_ns
        self._rest = data[end:]
        if self._count and self._rest.endswith(_LAST_CHUNK) and not self.done.done():
            self.done.set_result(self._count)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that the answer is not whole."""
        if not self.done.done():
            seen = self._rest[-_SHOWN_BYTES:]
            message = f"broken off after {self._count} tokens, at {seen!r}: {exc}"
            self.done.set_exception(ConnectionError(message))

    def leave(self) -> None:
        """Close it in the middle."""
        if not self.done.done():
            self.done.set_result(self._count)
        self._transport.close()

    @classmethod
    async def open(cls, port: int, request: bytes, samples: Samples) -> Self:
        """Connect to this machine and ask."""
        loop = asyncio.get_running_loop()
        make: Callable[[], Self] = lambda: cls(request, samples)  # noqa: E731
        _, stream = await loop.create_connection(make, "127.0.0.1", port)
        return stream


class Caller(asyncio.Protocol):
    """Sends one small request after the other on a kept connection.

    `call` takes note of when a request was due; what waits in line counts as late.
    """

    def __init__(self, status: bytes) -> None:
        self.samples: Samples = []
        self.failure: Exception | None = None
        self.on_answer: Callable[[], None] = lambda: None
        self._status = b"HTTP/1.1 " + status
        self._due: deque[tuple[int, bytes]] = deque()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail, unless it was closed by this side."""
        if self._due and self.failure is None:
            self.failure = exc or ConnectionError("closed with requests under way")
            self.on_answer()

    def call(self, request: bytes, due_ns: int) -> None:
        """Send a request, now or as soon as the one before is answered."""
        self._due.append((due_ns, request))
        if len(self._due) == 1:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take the time of an answer once it is whole."""
        data = self._rest + data if self._rest else data
        head = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, head) if head >= 0 else None
        if head >= 0 and (length is None or not data.startswith(self._status)):
            self.failure = ConnectionError(f"not what was expected: {data[:200]!r}")
            self._transport.close()
            self.on_answer()
            return
        if length is None or len(data) < head + 4 + int(length[1]):
            self._rest = data
            return
        self._rest = b""
        due_ns, _ = self._due.popleft()
        now = time.monotonic_ns()
        self.samples.append(now - due_ns)
        if self._due:
            self._transport.write(self._due[0][1])
        self.on_answer()

    def close(self) -> None:
        """Close it."""
        self._due.clear()
        self._transport.close()

    @classmethod
    async def open(cls, port: int, status: bytes) -> Self:
        """Connect to this machine."""
        loop = asyncio.get_running_loop()
        make: Callable[[], Self] = lambda: cls(status)  # noqa: E731
        _, caller = await loop.create_connection(make, "127.0.0.1", port)
        return caller


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the samples are."""
    ordered = sorted(samples)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))])
