"""Serve plain requests of one client's connection, and leave others to aiohttp.

If a request is not plain, or the fast path does not serve it, the connection and the
bytes received are handed over to aiohttp's server for good. That is possible as long as
no byte of a response has been sent.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from ollama_proxy.base.tasks import start_task
from ollama_proxy.base.tcp_keep_alive import IS_INHERITED, keep_alive
from ollama_proxy.server.fast.parser import PlainRequest, RequestParser
from ollama_proxy.server.half_closed import patience_s
from ollama_proxy.server.tls.transport import prepare_tls
from ollama_proxy.serving.request_context import TriedOn

_REST_S = 1.0
_LINGER_S = 2.0
_READ_AHEAD = 64 * 1024


class FastPath(Protocol):
    """Serves plain requests."""

    def take(self, client: "ClientConnection", request: PlainRequest) -> bool:
        """Answer a request or begin to relay it; False leaves it to aiohttp."""


class ClientConnection(asyncio.Protocol):
    """Carries a client's connection; is its own writer, as aiohttp's requests have one.

    - ``behind``: makes the aiohttp protocol that takes the connection over; it gets
      the nodes that have failed the request.
    - ``made``, ``gone``: called once the connection is open, and once it is closed or
      handed over; ``transport`` is None then.
    - ``method``: of the request in progress.
    - ``peer``: address of the client, "" if unknown.
    - ``is_hub``: it is one to the hub's own address.
    """

    def __init__(
        self,
        fast_path: FastPath,
        behind: Callable[[TriedOn], asyncio.Protocol],
        *,
        made: Callable[["ClientConnection"], None],
        gone: Callable[["ClientConnection"], None],
        is_hub: bool = False,
    ) -> None:
        self.is_hub = is_hub
        self.idle_since = asyncio.get_running_loop().time()
        self.method = ""
        self.peer = ""
        self._transport: asyncio.Transport | None = None
        self._fast_path = fast_path
        self._behind = behind
        self._made, self._gone = made, gone
        self._parser = RequestParser()
        self._came: list[bytes] = []
        self._early = bytearray()
        self._serving: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._is_tls = False
        self._is_last = False
        self._drops = False
        self._is_read = False
        self._has_begun = False
        self._unbegun: Callable[[], None] | None = None

    @property
    def transport(self) -> asyncio.Transport | None:
        """Return the connection below; None once it is closed or taken over."""
        return self._transport

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Return what serves the request in progress."""
        return self._serving

    @property
    def writer(self) -> "ClientConnection":
        """Return how to wait for the client."""
        return self

    @property
    def is_idle(self) -> bool:
        """Tell whether it waits for a request."""
        return self._serving is None and not self._came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the new connection alive; TCP probes notice a client that vanishes."""
        self._transport = cast("asyncio.Transport", transport)  # or uvloop's
        if not IS_INHERITED:
            keep_alive(transport.get_extra_info("socket"))
        self._is_tls = prepare_tls(self._transport)
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if isinstance(name, tuple) and name else ""
        self._made(self)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; hold back those after the request in progress.

        Keep reading while a request is served: a transport whose reading is paused does
        not report a disconnect. Beyond 64 KiB, bytes are dropped and the connection is
        closed after this response.
        """
        if self._serving is None:
            if not self._is_last:
                self._read(data)
        elif len(self._early) + len(data) > _READ_AHEAD:
            self._early.clear()
            self._drops = self._is_last = True
        elif not self._drops:
            self._early += data

    def eof_received(self) -> bool:
        """Give a request in progress a moment: a half-closed client may still read.

        On TLS asyncio closes the connection, whatever is returned.
        """
        if self._serving is None or self._is_tls:
            return False
        loop = asyncio.get_running_loop()
        patience = patience_s(is_read=self._is_read, has_begun=self._has_begun)
        self._leaving = loop.call_later(patience, self.abort)
        return True

    def _read(self, data: bytes) -> None:
        self._came.append(data)
        parser = self._parser
        parser.feed(data)
        request = parser.take() if parser.is_plain else None
        if request is not None:
            self._serve(request)
        elif not parser.is_plain or not parser.has_head:
            self.hand_over()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_REST_S, self.hand_over)

    def _serve(self, request: PlainRequest) -> None:
        self._stop_timer()
        self.method = request.method
        is_full = self._room is not None  # aiohttp waits until the client reads
        if is_full or not self._fast_path.take(self, request):
            self.hand_over()
        elif self._serving is None:
            self._end_request()

    def send(self, data: bytes) -> None:
        """Write a whole answer, or the beginning of one."""
        self._came.clear()
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._has_begun = True
        self._transport.write(data)

    def run(
        self,
        serve: Callable[[], Coroutine[Any, Any, None]],
        *,
        is_read: bool = False,
        unbegun: Callable[[], None] | None = None,
    ) -> None:
        """Serve the request in a task, which is cancelled if the client leaves.

        ``is_read``: a read, which gets longer to finish after a half-close. ``serve``
        is not even called if the client leaves at once; ``unbegun`` is then. If it
        raises, the connection is aborted.
        """
        self._is_read, self._has_begun, self._unbegun = is_read, False, unbegun
        self._serving = start_task(self._run(serve))

    async def _run(self, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """See a request to its end; the next may come as soon as it is answered."""
        self._unbegun = None
        try:
            await serve()
        except ConnectionError:
            self.abort()
        except BaseException:
            self.abort()
            raise
        self._serving = None
        if self._transport is not None:
            self._end_request()

    def _end_request(self) -> None:
        """Prepare for the next request, which may have come already."""
        self._came.clear()
        self.idle_since = asyncio.get_running_loop().time()
        if self._is_last:
            self.end()
            return
        if not self._early:
            self._end_if_left()
            return
        data = bytes(self._early).lstrip(b"\r\n")  # RFC 9112 §2.2
        self._early.clear()
        if self._transport is None or self._transport.is_closing():
            return
        if data:
            self._read(data)
        self._end_if_left()

    def _end_if_left(self) -> None:
        """Close it if the client sends no more, and nothing of its is served."""
        if self._leaving is not None and self._serving is None:
            self.end()

    def hand_over(self, tried_on: TriedOn = ()) -> bool:
        """Hand the connection, and the request received on it, over to aiohttp.

        ``tried_on``: the nodes that have failed it. Returns False if the client has
        left: there is nothing to serve.
        """
        transport, data = self._transport, b"".join(self._came) + self._early
        if transport is None or transport.is_closing():
            return False
        if self._drops:  # bytes were dropped, so aiohttp can't serve it
            transport.abort()
            return False
        is_full, has_left = self._room is not None, self._leaving is not None
        self._let_go()
        protocol = self._behind(tried_on)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if is_full:
            protocol.pause_writing()
        protocol.data_received(data)
        if has_left:
            protocol.eof_received()
        return True

    def end(self) -> None:
        """Close it, after the answer that is under way."""
        self._is_last = True
        transport = self._transport
        if self._serving is not None or transport is None or transport.is_closing():
            return
        if not self._drops or self._is_tls:
            transport.close()
            self._await_close_notify()
            return
        # close() with unread bytes in the receive buffer makes the kernel send RST, and
        # the client then drops the end of the response. So half-close, and abort later.
        with contextlib.suppress(OSError):
            transport.write_eof()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LINGER_S, self.abort)

    def _await_close_notify(self) -> None:
        """Close an idle connection on TLS soon, even if the client does not answer.

        asyncio waits for the client's ``close_notify`` first, and many clients read
        nothing until their next request. An answer of a moment ago may be unsent: then
        asyncio's own limit holds.
        """
        loop = asyncio.get_running_loop()
        if self._is_tls and self.idle_since + _LINGER_S < loop.time():
            self._stop_timer()
            self._timer = loop.call_later(_LINGER_S, self.abort)

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request in progress: its client has left."""
        del exc
        if self._serving is not None:
            self._serving.cancel()
        if self._unbegun is not None:
            self._unbegun()
            self._unbegun = None
        self._let_go()

    def _let_go(self) -> None:
        self._transport = None
        self._stop_timer()
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        self.resume_writing()
        self._parser.close()
        self._came.clear()
        self._early.clear()
        self._gone(self)

    def _stop_timer(self) -> None:
        """Wait no more for the rest of a request."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_writing(self) -> None:
        """Have `drain` wait."""
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Have `drain` go on."""
        if self._room is not None:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    async def drain(self) -> None:
        """Wait until most of the written bytes are sent, or the connection closes."""
        if self._room is not None:
            # shield: a cancelled wait must not cancel the future that others wait for
            await asyncio.shield(self._room)
