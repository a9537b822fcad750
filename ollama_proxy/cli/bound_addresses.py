"""Bind every address that the settings name, before anything else happens."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.listen_address import client_url
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.access.hosts import PublicHosts
from ollama_proxy.server.binding import bind
from ollama_proxy.server.metrics_listener import MetricsListener


class BoundAddresses(NamedTuple):
    """Holds the bound sockets: of the proxy, and of the metrics if they have one."""

    main: socket.socket
    metrics: socket.socket | None

    def close(self) -> None:
        """Close them."""
        for bound in self:
            if bound is not None:
                bound.close()


def bind_all(settings: Settings) -> BoundAddresses:
    """Bind them, or raise `StartupError`, which names the setting."""
    main = bind(settings.listen)
    if settings.metrics_listen is None:
        return BoundAddresses(main, None)
    try:
        metrics = bind(settings.metrics_listen, "OLLAMA_PROXY_METRICS_LISTEN")
    except BaseException:
        main.close()
        raise
    return BoundAddresses(main, metrics)


@contextlib.asynccontextmanager
async def serving_metrics(
    bound: BoundAddresses, settings: Settings, render: Callable[[], bytes]
) -> AsyncIterator[None]:
    """Serve the metrics on their own address, if they have one."""
    if bound.metrics is None or settings.metrics_listen is None:
        yield
        return
    listener = MetricsListener(render, PublicHosts(settings.allowed_hosts))
    await listener.start(bound.metrics)
    host, port = settings.metrics_listen.host, bound.metrics.getsockname()[1]
    url = f"{client_url(host, port)}/metrics"
    structlog.get_logger().info(log.METRICS_SERVED, url=url)
    try:
        yield
    finally:
        listener.close()
