"""Open connections to instances, and reuse them for a while.

Open connections have no limit: each belongs to a request of a client, and Ollama has a
queue of its own. The number and age of idle ones are limited.
"""

import asyncio
import contextlib
import functools
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import aiohappyeyeballs
from yarl import URL

from ollama_proxy.base.tcp_keep_alive import keep_alive
from ollama_proxy.base.timing import STANDARD
from ollama_proxy.upstream.connection import Connection
from ollama_proxy.upstream.endpoint import Upstream

_CONNECT_TIMEOUT_S = 10.0
_HAPPY_EYEBALLS_S = 0.25
_RESOLVED_FOR_S = 10.0
_CLOSE_S = 1.0

_AddressInfo = aiohappyeyeballs.AddrInfoType


class ConnectionKey(NamedTuple):
    """Identifies a peer: where to connect, and the authorities trusted there.

    ``tunnel``: the node that connects to us instead.
    """

    host: str
    port: int
    server_name: str | None
    context: ssl.SSLContext | None
    tunnel: str = ""


Dial = Callable[[str, Connection], Awaitable[None]]
"""Attaches a connection to a tunnel of a node; raises `OSError` if it has none."""


async def dial_nothing(node_id: str, _connection: Connection) -> None:
    """Refuse: nothing here takes tunnels."""
    raise ConnectionRefusedError(f"no tunnel of {node_id!r} ends here")


class ConnectionPool:
    """Opens connections; keeps idle ones for a while, and only so many per address."""

    def __init__(
        self,
        *,
        kept_for_s: float = 15.0,
        kept_most: int = 256,
        stale_s: float = STANDARD.stale_s,
        dial: Dial = dial_nothing,
    ) -> None:
        self._stale_s = stale_s
        self._dial = dial
        self._kept_for_s = kept_for_s
        self._kept_most = kept_most
        self._idle: dict[ConnectionKey, dict[Connection, None]] = {}
        self._open: set[Connection] = set()
        self._resolved: dict[ConnectionKey, tuple[float, list[_AddressInfo]]] = {}
        self._default_context: ssl.SSLContext | None = None
        self._generation = 0
        self._all_gone = asyncio.Event()
        self._sweeping: asyncio.TimerHandle | None = None

    async def aclose(self) -> None:
        """Close every connection, and wait until they are closed."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._all_gone.clear()
        for connection in tuple(self._open):
            connection.close()
        if self._open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._all_gone.wait()

    def forget(self) -> None:
        """Close every idle connection: the peers may have vanished.

        A machine that was suspended resumes with dead connections, and gets no RST or
        FIN for them. Requests in progress may finish.
        """
        self._resolved.clear()
        self._generation += 1
        for kept in tuple(self._idle.values()):
            for connection in tuple(kept):
                connection.close()

    def key_of(self, upstream: Upstream) -> ConnectionKey:
        """Return where an upstream is."""
        url, link = URL(upstream.url), upstream.link
        if url.scheme == "https":
            context = (link.context if link else None) or self._system_context()
        else:
            context = None
        server_name = link.server_name if link is not None else None
        tunnel = link.tunnel if link is not None else ""
        return ConnectionKey(
            url.raw_host or "", url.port or 80, server_name, context, tunnel
        )

    def _system_context(self) -> ssl.SSLContext:
        """Return the TLS context with the system's authorities; it is slow to load."""
        if self._default_context is None:
            self._default_context = ssl.create_default_context()
        return self._default_context

    async def connect(self, address: ConnectionKey, *, fresh: bool) -> Connection:
        """Return a connection: an idle one if there is, unless it must be ``fresh``.

        Raises `OSError` if none can be opened. One through a tunnel is always new.
        """
        if address.tunnel:
            return await self._through_tunnel(address)
        while not fresh and (kept := self._idle.get(address)):
            connection, _ = kept.popitem()
            if connection.is_quiet:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                return await self._open_one(address)
        except TimeoutError as error:
            where = f"{address.host}:{address.port}"
            message = f"no connection to {where} in {_CONNECT_TIMEOUT_S:.0f} s"
            raise TimeoutError(message) from error

    async def _through_tunnel(self, address: ConnectionKey) -> Connection:
        connection = Connection(partial(self._gone, address), self._stale_s)
        await self._dial(address.tunnel, connection)
        if connection.is_open:
            self._open.add(connection)
        return connection

    async def _open_one(self, address: ConnectionKey) -> Connection:
        loop = asyncio.get_running_loop()
        generation = self._generation
        named = address.server_name or address.host
        connect = partial(
            loop.create_connection,
            lambda: Connection(partial(self._gone, address), self._stale_s),
            ssl=address.context,
            server_hostname=named if address.context is not None else None,
        )
        if _is_written_out(address.host):
            transport, opened = await connect(address.host, address.port)
        else:
            bound = await aiohappyeyeballs.start_connection(
                await self._resolve(address), happy_eyeballs_delay=_HAPPY_EYEBALLS_S
            )
            try:
                transport, opened = await connect(sock=bound)
            except BaseException:
                bound.close()
                raise
        keep_alive(transport.get_extra_info("socket"))
        connection: Connection = opened
        connection.generation = generation
        if connection.is_open:
            self._open.add(connection)
        return connection

    async def _resolve(self, address: ConnectionKey) -> list[_AddressInfo]:
        """Return the addresses of a host, as asked for a moment ago."""
        loop = asyncio.get_running_loop()
        found = self._resolved.get(address)
        if found is not None and loop.time() - found[0] < _RESOLVED_FOR_S:
            return found[1]
        infos = await loop.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM
        )
        too_old = loop.time() - _RESOLVED_FOR_S
        for old in [old for old, (at, _) in self._resolved.items() if at < too_old]:
            del self._resolved[old]
        self._resolved[address] = (loop.time(), list(infos))
        return list(infos)

    def keep(self, address: ConnectionKey, connection: Connection) -> None:
        """Keep a connection for another request, if it is worth it."""
        if address.tunnel:  # each carries one request
            connection.close()
            return
        kept = self._idle.get(address, {})
        if connection.generation != self._generation or len(kept) >= self._kept_most:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(address, kept)[connection] = None
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._kept_for_s, self._sweep)

    def _sweep(self) -> None:
        """Close connections that were idle for long; repeat while any is idle."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._kept_for_s
        for address, kept in tuple(self._idle.items()):
            for connection in tuple(kept):
                if connection.idle_since <= oldest:
                    del kept[connection]
                    connection.close()
            if not kept:
                del self._idle[address]
        again = loop.call_later(self._kept_for_s, self._sweep) if self._idle else None
        self._sweeping = again

    def _gone(self, address: ConnectionKey, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.get(address, {}).pop(connection, None)
        if not self._open:
            self._all_gone.set()


@functools.lru_cache(maxsize=64)
def _is_written_out(host: str) -> bool:
    """Tell whether a host is an address itself, which needs no resolver."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
