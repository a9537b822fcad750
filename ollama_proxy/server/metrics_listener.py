"""Serve the metrics on an address of their own: no key, no TLS, and nothing else.

A scraper is often configured once for many targets and has no key of ours; on the
proxy's own address ``/metrics`` needs one. Everything here is bounded, since every
program that reaches the address may connect.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from prometheus_client import CONTENT_TYPE_LATEST

from ollama_proxy.core.access.hosts import HostRules

MOST_CONNECTIONS: Final = 64
"""More are closed at once: a scraper uses one."""

LIMIT_S: Final = 10.0
"""Limit of a connection, from its beginning to the last byte of the answer."""

MOST_BYTES: Final = 16 * 1024
"""Limit of a request's head."""

_BACKLOG = 64
_TEXT = "text/plain; charset=utf-8"
_BROWSERS = (b"\norigin:", b"\nsec-fetch-", b"\ncookie:", b"\nreferer:", b"mozilla/")


class _Answer(NamedTuple):
    """Holds an answer."""

    status: str
    body: bytes
    content_type: str = _TEXT
    allow: str = ""


_HEALTHY = _Answer("200 OK", b'{"status": "ok"}', "application/json; charset=utf-8")
_BAD = _Answer("400 Bad Request", b"this is no request of HTTP/1.1\n")
_FOREIGN = _Answer(
    "403 Forbidden",
    b"this Host is foreign; name it in OLLAMA_PROXY_ALLOWED_HOSTS\n",
)
_NOT_FOUND = _Answer("404 Not Found", b"here are /metrics and /healthz alone\n")
_NO_METHOD = _Answer("405 Method Not Allowed", b"only GET\n", allow="GET, HEAD")
_TOO_LONG = _Answer("431 Request Header Fields Too Large", b"the head is too long\n")


class MetricsListener:
    """Answers ``/metrics`` and ``/healthz`` on a bound socket.

    ``render`` returns the metrics in Prometheus' text format. ``hosts``: names that
    browsers may use, so that no page of a stranger reads them by DNS rebinding.
    """

    def __init__(
        self,
        render: Callable[[], bytes],
        hosts: HostRules,
        *,
        most: int = MOST_CONNECTIONS,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._render = render
        self._hosts = hosts
        self._most = most
        self._limit_s = limit_s
        self._open: set[_Connection] = set()
        self._listening: asyncio.Server | None = None

    async def start(self, bound: socket.socket) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(
            lambda: _Connection(self), sock=bound, backlog=_BACKLOG
        )

    def close(self) -> None:
        """Accept no more, and end the connections that are there."""
        if self._listening is not None:
            self._listening.close()
        for connection in tuple(self._open):
            connection.abort()

    def admit(self, connection: "_Connection") -> float | None:
        """Return how long a new connection may last; None if there are too many."""
        if len(self._open) >= self._most:
            return None
        self._open.add(connection)
        return self._limit_s

    def forget(self, connection: "_Connection") -> None:
        """Forget a connection that has ended."""
        self._open.discard(connection)

    def answer(self, head: bytes) -> bytes:
        """Return the answer to a request's head, as bytes."""
        line, _, fields = head.partition(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):  # noqa: PLR2004 - method, target, version
            return _encoded(_BAD)
        method, target, _ = words
        answer = self._choose(method, target.partition(b"?")[0], b"\n" + fields.lower())
        return _encoded(answer, is_head=method == b"HEAD")

    def _choose(self, method: bytes, path: bytes, fields: bytes) -> _Answer:
        if self._is_foreign(fields):
            return _FOREIGN
        if path not in {b"/metrics", b"/healthz"}:
            return _NOT_FOUND
        if method not in {b"GET", b"HEAD"}:
            return _NO_METHOD
        if path == b"/healthz":
            return _HEALTHY
        return _Answer("200 OK", self._render(), CONTENT_TYPE_LATEST)

    def _is_foreign(self, fields: bytes) -> bool:
        """Tell whether a browser asks under a name that is not this machine's."""
        if not any(mark in fields for mark in _BROWSERS):
            return False
        _, _, rest = fields.partition(b"\nhost:")
        host = rest.partition(b"\r\n")[0].strip().decode("latin-1")
        return not self._hosts.takes(host)


class _Connection(asyncio.Protocol):
    """Carries one request, and closes."""

    def __init__(self, listener: MetricsListener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head = bytearray()
        self._is_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read, unless there are too many connections."""
        self._transport = cast("asyncio.Transport", transport)
        limit_s = self._listener.admit(self)
        if limit_s is None:
            self._transport.abort()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(limit_s, self.abort)

    def data_received(self, data: bytes) -> None:
        """Answer once the head is complete; drop the bytes after it."""
        if self._is_answered:
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if 0 <= end <= MOST_BYTES:
            self._send(self._listener.answer(bytes(self._head[: end + 2])))
        elif len(self._head) > MOST_BYTES:
            self._send(_encoded(_TOO_LONG))

    def _send(self, answer: bytes) -> None:
        self._is_answered = True
        self._head.clear()
        if self._transport is not None:
            self._transport.write(answer)
            self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        del exc
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._listener.forget(self)


def _encoded(answer: _Answer, *, is_head: bool = False) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
        "X-Content-Type-Options: nosniff",
    ]
    if answer.allow:
        lines.append(f"Allow: {answer.allow}")
    head = "\r\n".join([*lines, "", ""]).encode()
    return head if is_head else head + answer.body
