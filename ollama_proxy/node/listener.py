"""Listen for the hub: bind the port, and take connections, with TLS or without."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.tls_listener import TlsListener
from ollama_proxy.node.app import NodeApp
from ollama_proxy.node.door import Door, Strangers

_BACKLOG = 128
_MOST_HEAD = 1 << 20
_LEAST_S = 0.01


class _NoMalformed(logging.Filter):
    """Drops what aiohttp logs of bytes that are no request: they could fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is of something else."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


_SERVER_LOG = logging.getLogger("aiohttp.server.node")
_SERVER_LOG.addFilter(_NoMalformed())


def bind(port: int) -> socket.socket:
    """Bind the port on every address, of both families where the machine has them."""
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("::", port),
                family=socket.AF_INET6,
                dualstack_ipv6=True,
                backlog=_BACKLOG,
            )
        return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)  # noqa: S104 - the door is `Door`
    except OSError as error:
        raise StartupError(
            f"can't listen on port {port} ({error.strerror or error}); stop what"
            " listens there, or set NODE_PORT to another one"
        ) from error


@contextlib.asynccontextmanager
async def serving(
    app: NodeApp, bound: socket.socket, context: ssl.SSLContext | None
) -> AsyncIterator[web.Server]:
    """Take connections on a bound socket; ``context``: what TLS shows, if it is on.

    Yields what makes a protocol for each connection, for those that come otherwise.
    """
    runner = web.AppRunner(
        app.build(),
        handler_cancellation=True,  # a hub that leaves ends the generation
        access_log=None,
        logger=_SERVER_LOG,
        auto_decompress=False,
        max_line_size=_MOST_HEAD,
        max_field_size=_MOST_HEAD,
        max_headers=10_000,
        shutdown_timeout=_LEAST_S,  # the agent has waited
    )
    await runner.setup()
    try:
        server = runner.server
        assert server is not None  # noqa: S101 - after `setup`
        door = partial(Door, app.admits, server, Strangers(), app.guests)
        async with _listening(door, bound, context):
            yield server
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _listening(
    door: "partial[Door]", bound: socket.socket, context: ssl.SSLContext | None
) -> AsyncIterator[None]:
    if context is None:
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(door, sock=bound)
        try:
            yield
        finally:
            listening.close()
        return
    on_tls = TlsListener(bound, lambda: context, door)
    on_tls.start(_BACKLOG)
    try:
        yield
    finally:
        await on_tls.aclose()
