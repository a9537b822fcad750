"""Answer a client that speaks HTTP to a port for TLS."""

import asyncio
import contextlib
from typing import Final, cast

_LINGER_S = 1.0
_MOST = 64 * 1024
_BODY = (
    b'{"error":"this ollama-proxy speaks TLS on this port: write https:// instead of'
    b' http:// in the address"}'
)
REFUSAL: Final = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"Content-Type: application/json; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_BODY), _BODY)
)


class PlainRefusal(asyncio.Protocol):
    """Sends the refusal at once, and drops what the client sends for a moment.

    Closing with unread bytes would make the kernel send RST, and the client would lose
    the refusal.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._dropped = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the refusal, and half-close."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(REFUSAL)
        with contextlib.suppress(OSError):
            self._transport.write_eof()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LINGER_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Drop it; close once there was more than any head."""
        self._dropped += len(data)
        if self._dropped > _MOST and self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        del exc
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
