"""Let the hub in, and refuse everybody else before a request of theirs is parsed."""

import asyncio
from collections.abc import Callable
from typing import cast

from ollama_proxy.base.tcp_keep_alive import keep_alive
from ollama_proxy.node.hub_addresses import shown_peer
from ollama_proxy.node.refusals import refusal_body

_MOST_STRANGERS = 64
_MOST_GUESTS = 64
_GUEST_S = 10.0
_WRITE_AHEAD = 64 * 1024  # on TLS, asyncio has 512 KiB
_LONGEST_HEAD = 16 * 1024
_HEAD_S = 10.0
_LINGER_S = 2.0
_END = b"\r\n\r\n"


class Strangers:
    """Counts connections of strangers, which are few at a time."""

    def __init__(self, most: int = _MOST_STRANGERS) -> None:
        self.most = most
        self.count = 0


class Guests:
    """Holds connections of peers that have yet to show the hub's token.

    Each has 10 s. If there are 64, the oldest makes room for a new one.
    """

    def __init__(self, most: int = _MOST_GUESTS, *, limit_s: float = _GUEST_S) -> None:
        self._most, self._limit_s = most, limit_s
        self._waiting: dict[asyncio.Transport, asyncio.TimerHandle] = {}

    def receive(self, transport: asyncio.Transport) -> None:
        """Give a connection its time."""
        if len(self._waiting) >= self._most:
            self._turn_out(next(iter(self._waiting)))
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._limit_s, self._turn_out, transport)
        self._waiting[transport] = timer

    def admit(self, transport: asyncio.Transport | None) -> None:
        """Let a connection stay: it has shown the token."""
        if transport is not None and (timer := self._waiting.pop(transport, None)):
            timer.cancel()

    def _turn_out(self, transport: asyncio.Transport) -> None:
        self._waiting.pop(transport).cancel()
        transport.abort()

    def __len__(self) -> int:
        return len(self._waiting)


class Door(asyncio.Protocol):
    """Hands a peer that is admitted to the server; refuses another with 403.

    If there are ``guests``, another goes to the server as well, which asks for a token.
    A stranger's request is read to the end of its head, since a connection that is
    closed with unread bytes is reset, and the sentence lost.
    """

    def __init__(
        self,
        admits: Callable[[str], bool],
        enter: Callable[[], asyncio.Protocol],
        strangers: Strangers,
        guests: Guests | None = None,
    ) -> None:
        self._admits, self._enter, self._strangers = admits, enter, strangers
        self._guests = guests
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._read = b""
        self._has_answered = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection over, or wait for the head of its request."""
        stream = cast("asyncio.Transport", transport)
        self._peer = str((stream.get_extra_info("peername") or ("",))[0])
        keep_alive(stream.get_extra_info("socket"))
        stream.set_write_buffer_limits(_WRITE_AHEAD)
        is_admitted = self._admits(self._peer)
        if is_admitted or self._guests is not None:
            if not is_admitted and self._guests is not None:
                self._guests.receive(stream)
            server = self._enter()
            stream.set_protocol(server)
            server.connection_made(stream)
            return
        self._strangers.count += 1
        self._transport = stream
        if self._strangers.count > self._strangers.most:
            stream.abort()
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(_HEAD_S, stream.abort)

    def data_received(self, data: bytes) -> None:
        """Read a stranger's head, then refuse; what follows is thrown away."""
        if self._has_answered:
            return
        self._read += data[:_LONGEST_HEAD]
        if _END in self._read or len(self._read) >= _LONGEST_HEAD:
            self._refuse()

    def _refuse(self) -> None:
        transport, self._read, self._has_answered = self._transport, b"", True
        assert transport is not None  # noqa: S101 - bytes arrived on it
        body = refusal_body(
            "this agent takes work only from the addresses of its SERVER_URL, and"
            f" {shown_peer(self._peer)} is none of them; give SERVER_URL a name or an"
            " address from which the hub asks"
        )
        transport.write(
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        transport.write_eof()
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(_LINGER_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Forget a stranger."""
        self._strangers.count -= 1
        if self._deadline is not None:
            self._deadline.cancel()
