"""Accept connections, and end them in good order."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from aiohttp import web

from ollama_proxy.base.plain_refusal import PlainRefusal
from ollama_proxy.base.tcp_keep_alive import keep_alive
from ollama_proxy.base.tls_listener import TlsListener
from ollama_proxy.server.aiohttp.behind import Behind
from ollama_proxy.server.fast.connection import ClientConnection, FastPath
from ollama_proxy.serving.request_context import TriedOn

_IDLE_S = 3600.0
_SWEEP_S = 60.0
_ABORTED_S = 1.0
_LEAST_S = 0.01


class Runner(web.AppRunner):
    """Serves connections by the fast path, with an aiohttp application behind it.

    Without a fast path the application serves all requests. ``drain_timeout_s``: how
    long requests in progress may take at shutdown.
    """

    def __init__(
        self,
        app: web.Application,
        fast_path: FastPath | None,
        *,
        drain_timeout_s: float,
        **options: Any,
    ) -> None:
        super().__init__(
            app,
            # aiohttp takes 0 for no limit, and would wait until every stream has ended.
            shutdown_timeout=max(_LEAST_S, drain_timeout_s),
            keepalive_timeout=_IDLE_S,
            **options,
        )
        self._fast_path = fast_path
        self._drain_timeout_s = drain_timeout_s
        self._clients: set[ClientConnection] = set()
        self._behind: WeakSet[Behind] = WeakSet()
        self._all_gone = asyncio.Event()
        self._is_ending = False
        self._listening: list[asyncio.Server] = []
        self._on_tls: list[TlsListener] = []
        self._sweeping: asyncio.TimerHandle | None = None

    async def listen(
        self,
        bound: socket.socket,
        *,
        backlog: int,
        context: Callable[[], ssl.SSLContext] | None = None,
        takes_plain: bool = False,
        is_hub: bool = False,
    ) -> None:
        """Take connections on a bound socket, after `setup`; on TLS, if asked to.

        ``context`` returns what a handshake of this moment shows; None: no TLS.
        ``takes_plain``: without TLS, too.
        ``is_hub``: where the former hub was, whose page stands at ``/``.
        """
        server = self.server
        assert server is not None  # noqa: S101 - after `setup`
        keep_alive(bound)  # Linux copies it to accepted connections

        def behind(tried_on: TriedOn) -> Behind:
            return Behind(server(), tried_on=tried_on, is_hub=is_hub)

        def connect() -> ClientConnection:
            assert self._fast_path is not None  # noqa: S101 - see below
            return ClientConnection(
                self._fast_path,
                behind,
                made=self._made,
                gone=self._gone,
                is_hub=is_hub,
            )

        def connect_behind() -> Behind:
            connection = Behind(server(), lambda: self._is_ending, is_hub=is_hub)
            self._behind.add(connection)
            return connection

        made = connect if self._fast_path is not None else connect_behind
        loop = asyncio.get_running_loop()
        if context is None:
            listening = loop.create_server(made, sock=bound, backlog=backlog)
            self._listening.append(await listening)
        else:
            plain = made if takes_plain else PlainRefusal
            on_tls = TlsListener(bound, context, made, plain=plain)
            self._on_tls.append(on_tls)
            on_tls.start(backlog)
        if self._sweeping is None:
            self._sweeping = loop.call_later(_SWEEP_S, self._sweep)

    def _made(self, client: ClientConnection) -> None:
        self._clients.add(client)
        if self._is_ending:  # it was accepted just before the end
            client.end()

    def _gone(self, client: ClientConnection) -> None:
        self._clients.discard(client)
        if not self._clients:
            self._all_gone.set()

    def _sweep(self) -> None:
        self.close_idle(_IDLE_S)
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(_SWEEP_S, self._sweep)

    def close_idle(self, longer_than_s: float) -> None:
        """Close the connections that have been idle for so long."""
        oldest = asyncio.get_running_loop().time() - longer_than_s
        for client in tuple(self._clients):
            if client.is_idle and client.idle_since < oldest:
                client.abort()
        for silent in tuple(self._behind):  # aiohttp closes the others
            since, transport = silent.silent_since, silent.transport
            if since is not None and since < oldest and transport is not None:
                transport.abort()

    async def cleanup(self) -> None:
        """Take no more connections, let requests end, then end everything."""
        for listening in self._listening:
            listening.close()
        for on_tls in self._on_tls:
            await on_tls.aclose()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await super().cleanup()

    async def shutdown(self) -> None:
        """Let requests end, here and behind, as long as they may take together."""
        self._is_ending = True
        for client in tuple(self._clients):
            client.end()
        for silent in tuple(self._behind):  # aiohttp would wait for them
            if silent.silent_since is not None and silent.transport is not None:
                silent.transport.close()
        await super().shutdown()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_timeout_s
        await self._drain()
        left_s = max(0.0, deadline - loop.time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s + _ABORTED_S):  # it may take twice left_s
                if self.server is not None:
                    await self.server.shutdown(left_s)

    async def _drain(self) -> None:
        """Wait for requests in progress on the fast path; cut those that take too long.

        This happens before aiohttp's shutdown: until it is over, requests may be handed
        over.
        """
        for wait_s in (self._drain_timeout_s, _ABORTED_S):
            if not self._clients:
                return
            self._all_gone.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._all_gone.wait()
            for client in tuple(self._clients):
                client.abort()

    def cut(self) -> None:
        """End every request now."""
        for client in tuple(self._clients):
            client.abort()
        for connection in self.server.connections if self.server else ():
            connection.force_close()
