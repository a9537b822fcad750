"""Filter the bytes of a client on their way to aiohttp's server.

aiohttp gets only requests that can be read in one way. A request that can't be served
is replaced by a request for its refusal, so that responses keep the order of requests.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp import web

from ollama_proxy.base import log
from ollama_proxy.base.tcp_keep_alive import IS_INHERITED, keep_alive
from ollama_proxy.core.http.request_head import RefusedRequestError
from ollama_proxy.core.ollama.error_bodies import JSON_TYPE, error_body
from ollama_proxy.core.ollama.routes import Family, Kind, allow_header
from ollama_proxy.server.aiohttp.request import BEGUN, REQUEST_CONTEXT
from ollama_proxy.server.aiohttp.request_stream import RequestStream
from ollama_proxy.server.half_closed import MOMENT_S, patience_s
from ollama_proxy.server.tls.transport import prepare_tls
from ollama_proxy.serving.client_writer import reset
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.request_context import TriedOn

_READS = frozenset({Kind.READ, Kind.SYSTEM})
_NOT_FOUND = b"404 page not found"
_REFUSED_PATH = "/-/refused"
_REFUSED = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    % _REFUSED_PATH.encode()
)


class Behind(asyncio.Protocol):
    """Carries a connection whose requests aiohttp's protocol ``server`` answers.

    ``refused``: the error of its last request, if that can't be served.
    ``silent_since``: when the connection was made; None once it has sent a byte. A
    connection made while the server ``is_ending`` is closed at once. ``tried_on``: the
    nodes that have failed its first request on another way in. ``is_hub``: it is one to
    the hub's own address.
    """

    def __init__(
        self,
        server: asyncio.Protocol,
        is_ending: Callable[[], bool] = lambda: False,
        *,
        tried_on: TriedOn = (),
        is_hub: bool = False,
    ) -> None:
        self._tried_on = tried_on
        self.is_hub = is_hub
        self._is_ending = is_ending
        self.silent_since: float | None = asyncio.get_running_loop().time()
        self.transport: asyncio.Transport | None = None
        self.refused: RefusedRequestError | None = None
        self._server = server
        self._stream = RequestStream()
        self._timer: asyncio.TimerHandle | None = None
        self._under_way = 0
        self._request: web.Request | None = None
        self._half_closed_at = 0.0
        self._is_tls = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the new connection alive; TCP probes notice a client that vanishes."""
        self.transport = cast("asyncio.Transport", transport)  # or uvloop's
        if not IS_INHERITED:
            keep_alive(transport.get_extra_info("socket"))
        self._is_tls = prepare_tls(self.transport)
        self._server.connection_made(transport)
        if self._is_ending():  # it was accepted just before the end
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Pass on requests that can be read in one way; refuse others, in order."""
        self.silent_since = None
        if self.refused is not None:
            return
        before = self._stream.requests
        passed = self._stream.feed(data)
        self._under_way += self._stream.requests - before
        self.refused = self._stream.refused
        if passed:
            self._server.data_received(passed)
        if self.refused is not None:
            self._under_way += 1
            self._server.data_received(_REFUSED)
        elif self._stream.is_broken:
            reset(self)  # a response may have begun: too late for a refusal

    def eof_received(self) -> bool:
        """Give a request in progress a moment: a half-closed client may still read.

        On TLS asyncio closes the connection, whatever is returned.
        """
        if self._is_tls:
            return False
        self._half_closed_at = asyncio.get_running_loop().time()
        return self._see_off()

    def _see_off(self) -> bool:
        """Close it once no request is in progress, or one took too long."""
        if self.transport is None:
            return False
        loop = asyncio.get_running_loop()
        left_s = self._half_closed_at + self._patience_s() - loop.time()
        if left_s <= 0:
            self.transport.close()
            return False
        self._timer = loop.call_later(min(left_s, MOMENT_S), self._see_off)
        return True

    def _patience_s(self) -> float:
        """Return how long requests in progress may take after the half-close."""
        if not self._under_way or self._stream.is_in_body:
            return 0.0
        request = self._request
        context = request.get(REQUEST_CONTEXT) if request is not None else None
        is_read = context is not None and context.route.kind in _READS
        has_begun = request is not None and BEGUN in request
        return patience_s(is_read=is_read, has_begun=has_begun)

    @property
    def peer(self) -> str:
        """Return the address of the connection's other end; "" if it is not known."""
        transport = self.transport
        name = transport.get_extra_info("peername") if transport is not None else None
        return str(name[0]) if isinstance(name, tuple) and name else ""

    def refuses(self, request: web.Request) -> bool:
        """Tell whether a request stands for one that can't be served."""
        return self.refused is not None and request.raw_path == _REFUSED_PATH

    def accept_upgrade(self) -> None:
        """Let bytes pass as they are from now on: aiohttp speaks another protocol."""
        self._stream.accept_upgrade()

    def note_begun(self, request: web.Request) -> None:
        """Record that a request is being served."""
        self._request = request

    def take_tried_on(self) -> TriedOn:
        """Return, once, the nodes that have failed the first request already."""
        tried_on, self._tried_on = self._tried_on, ()
        return tried_on

    def note_answered(self) -> None:
        """Record that a request is answered; bytes may still be unsent."""
        self._request = None
        self._under_way -= 1

    def pause_writing(self) -> None:
        """Have aiohttp wait."""
        self._server.pause_writing()

    def resume_writing(self) -> None:
        """Have aiohttp go on."""
        self._server.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self.transport = None
        self._stream.close()
        if self._timer is not None:
            self._timer.cancel()
        self._server.connection_lost(exc)


def behind_of(request: web.BaseRequest) -> Behind | None:
    """Return the connection of a request; None if it is closed."""
    transport = request.transport
    protocol = transport.get_protocol() if transport is not None else None
    return protocol if isinstance(protocol, Behind) else None


def refusal(behind: Behind, metrics: Metrics) -> web.Response:
    """Return a refusal, counted and written to the log: none of it is the client's."""
    refused = behind.refused or RefusedRequestError(400, "")
    reply = _reply(refused)
    metrics.count_request(Kind.UNKNOWN, "refused")
    keys = {"status": reply.status, "error": refused.message or "an unknown Expect"}
    if behind.peer:
        keys["client"] = behind.peer
    log.REQUESTS.write(log.REQUEST_REFUSED, keys)
    return reply


def _reply(refused: RefusedRequestError) -> web.Response:
    """Return the refusal: as Ollama's router has it, or in one sentence."""
    status = refused.status
    if refused.path:
        allowed = allow_header(refused.path)
        headers = {"Content-Type": "text/plain"}
        if not allowed:
            return web.Response(status=404, body=_NOT_FOUND, headers=headers)
        headers["Allow"] = allowed
        return web.Response(
            status=status, body=refused.message.encode(), headers=headers
        )
    if not refused.message:
        return web.Response(status=status)
    body = error_body(Family.NATIVE, status, refused.message)
    return web.Response(status=status, body=body, headers={"Content-Type": JSON_TYPE})
