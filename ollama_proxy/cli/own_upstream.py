"""Detect, before anything is served, an upstream that is the proxy itself.

Checks only what needs no request: an address of this machine and the proxy's port. A
loop through a gateway, a forwarded port of a container host or another proxy is found
by `ollama_proxy.upstream.loop_mark`.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Collection, Iterable

from yarl import URL

from ollama_proxy.backends.static_settings import StaticSettings
from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.listen_address import host_and_port
from ollama_proxy.base.parsers import Listen
from ollama_proxy.config.settings import Settings
from ollama_proxy.server.machine_hosts import hosts_of_this_machine

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_RESOLVED_IN_S = 2.0


async def refuse_own_upstream(settings: Settings) -> None:
    """Raise `StartupError` if the upstream's URL is the address the proxy listens on.

    A name that does not resolve in 2 s is left to the probe, which reports it.
    """
    for offer in settings.offers:
        own = offer.settings
        if isinstance(own, StaticSettings) and own.upstream_url is not None:
            await _refuse(settings.listen, own.upstream_url.url)


def warnings_of(settings: Settings) -> list[str]:
    """Return what is allowed and unsafe about any offer, each once."""
    told = [line for offer in settings.offers for line in offer.settings.warnings()]
    return list(dict.fromkeys(told))


async def _refuse(listen: Listen, upstream: str) -> None:
    url = URL(upstream)
    if url.port != listen.port or not listen.port:
        return
    found = await _addresses(url.host or "")
    listening = await _listening(listen.host)
    ours = hosts_of_this_machine().addresses
    if listening and any(leads_here(one, listening, ours) for one in found):
        where = host_and_port(listen.host, listen.port)
        raise StartupError(
            f"OLLAMA_PROXY_UPSTREAM_URL: {upstream} is where this proxy"
            f" itself is to listen ({where}); write the address of an Ollama"
            " server, or set OLLAMA_HOST to another host:port"
        )


async def _listening(host: str) -> IpAddress | None:
    """Return the address that `ollama_proxy.server.binding` takes for a host."""
    found = await _addresses(host or "::")
    return min(found, key=lambda one: one.version, default=None)


async def _addresses(host: str) -> list[IpAddress]:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError, UnicodeError):
        async with asyncio.timeout(_RESOLVED_IN_S):
            infos = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(_parsed(str(info[4][0]) for info in infos))
    return []


def _parsed(texts: Iterable[str]) -> Iterable[IpAddress]:
    """Return what of some texts is an address; an IPv4 one may be written as IPv6."""
    for text in texts:
        with contextlib.suppress(ValueError):
            found = ipaddress.ip_address(text.partition("%")[0])
            mapped = getattr(found, "ipv4_mapped", None)
            yield found if mapped is None else mapped


def leads_here(
    address: IpAddress, listening: IpAddress, own_addresses: Collection[str]
) -> bool:
    """Tell whether a connection to an address reaches the proxy's own socket.

    A wildcard means every address of this machine, both IPv4 and IPv6;
    ``own_addresses`` lists these. A connection to a wildcard goes to loopback (Linux,
    macOS).
    """
    if address.is_unspecified:
        return listening.is_unspecified or listening.is_loopback
    if not listening.is_unspecified:
        return address == listening
    return address.is_loopback or address in _parsed(own_addresses)
