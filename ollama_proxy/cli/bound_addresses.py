"""Bind every address that the settings name, before anything else happens."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.listen_address import client_url
from ollama_proxy.base.parsers import replace_listen
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.access.hosts import PublicHosts
from ollama_proxy.server.binding import bind, is_on_loopback
from ollama_proxy.server.metrics_listener import MetricsListener


class BoundAddresses(NamedTuple):
    """Holds the bound sockets: of the proxy, and of what else has an address.

    ``hub``: the address that the former hub had.
    """

    main: socket.socket
    metrics: socket.socket | None = None
    hub: socket.socket | None = None

    @property
    def are_local(self) -> bool:
        """Tell whether only this machine can connect to what takes requests."""
        is_main_local = is_on_loopback(self.main)
        return is_main_local and (self.hub is None or is_on_loopback(self.hub))

    @property
    def listening(self) -> tuple[tuple[str, int], ...]:
        """Return host and port of each, as the kernel has them."""
        names = (one.getsockname() for one in self if one is not None)
        return tuple((str(name[0]), int(name[1])) for name in names)

    def close(self) -> None:
        """Close them."""
        for bound in self:
            if bound is not None:
                bound.close()


def bind_all(settings: Settings) -> BoundAddresses:
    """Bind them, or raise `StartupError`, which names the setting."""
    bound = BoundAddresses(bind(settings.listen))
    others = {
        "metrics": (settings.metrics_listen, "OLLAMA_PROXY_METRICS_LISTEN"),
        "hub": (settings.hub_address, "OLLAMA_PROXY_HUB_LISTEN"),
    }
    try:
        for name, (listen, setting) in others.items():
            if listen is not None:
                bound = bound._replace(**{name: bind(listen, setting)})
    except BaseException:
        bound.close()
        raise
    return bound


def hub_url(settings: Settings, bound: BoundAddresses, *, is_tls: bool) -> str:
    """Return where machines register; empty if there is no hub."""
    if not settings.hub:
        return ""
    listen, taken = settings.hub_address or settings.listen, bound.hub or bound.main
    listen = replace_listen(listen, None, str(taken.getsockname()[1]))
    return listen.over(is_tls=is_tls).url


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
