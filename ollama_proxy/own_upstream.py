"""See before anything is served that the upstream is the proxy itself.

Only what can be known without asking anybody: an address of this machine, and the port
on which the proxy listens. A way back through a gateway, a port that a container host
passes on or another proxy is found by `ollama_proxy.proxy_mark`.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Collection, Iterable

from yarl import URL

from ollama_proxy.errors import StartupError
from ollama_proxy.gate import HostRules
from ollama_proxy.settings import Settings, backend_name

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_RESOLVED_IN_S = 2.0


async def refuse_own_upstream(settings: Settings) -> None:
    """Raise `StartupError` if the upstream's URL is where the proxy is to listen.

    A name that does not resolve in 2 s is left to the probe, which tells of it.
    """
    listen = settings.listen
    if backend_name(settings) != "static" or settings.upstream_url is None:
        return
    url = URL(settings.upstream_url)
    if url.port != listen.port or not listen.port:
        return
    found = await _addresses(url.host or "")
    listening = await _addresses(listen.host)
    own = HostRules.of_this_machine().addresses
    if any(leads_here(one, listening, own) for one in found):
        raise StartupError(
            f"OLLAMA_PROXY_UPSTREAM_URL: {settings.upstream_url} is where this proxy"
            f" itself is to listen ({listen.host}:{listen.port}); write the address of"
            " an Ollama server, or set OLLAMA_HOST to another host:port"
        )


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
    address: IpAddress, listening: Collection[IpAddress], own_addresses: Collection[str]
) -> bool:
    """Tell whether a connection to an address arrives where the proxy listens.

    ``listening`` may have wildcards, which mean every address of this machine, the IPv6
    one those of IPv4 too; ``own_addresses`` are these. To connect to a wildcard is to
    connect to loopback (Linux, macOS).
    """
    if address.is_unspecified:
        return any(one.is_unspecified or one.is_loopback for one in listening)
    is_own = address.is_loopback or address in _parsed(own_addresses)
    everywhere = any(
        one.is_unspecified and one.version >= address.version for one in listening
    )
    return address in listening or (is_own and everywhere)
