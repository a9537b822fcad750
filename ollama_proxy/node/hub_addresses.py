"""Tell whether a peer is the hub: it has an address that the hub's name resolves to."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses of a host; raises `OSError` or `TimeoutError`."""

_RESOLVE_S = 5.0
_MOST = 64

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the system's order, each once."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_RESOLVE_S):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class HubAddresses:
    """Knows the addresses of the hub; they are looked up again before each beat.

    While the name can't be resolved, the addresses before hold.
    """

    def __init__(self, host: str, port: int, resolve: Resolve = resolve) -> None:
        self._host, self._port, self._resolve = host, port, resolve
        self._known: frozenset[_Address] = frozenset()

    async def refresh(self) -> None:
        """Look the hub's name up."""
        try:
            found = await self._resolve(self._host, self._port)
        except (OSError, UnicodeError):  # `TimeoutError` is an `OSError`
            return
        known = {_address(text) for text in found[:_MOST]}
        self._known = frozenset(one for one in known if one is not None) or self._known

    def admits(self, peer: str) -> bool:
        """Tell whether a peer may ask. Any loopback address does for a loopback hub."""
        address = _address(peer)
        if address is None:
            return False
        is_local = address.is_loopback and any(one.is_loopback for one in self._known)
        return is_local or address in self._known

    def of_family(self, family: socket.AddressFamily) -> str | None:
        """Return an address of the hub's of a family, if it has one."""
        version = 4 if family == socket.AF_INET else 6
        found = sorted(str(one) for one in self._known if one.version == version)
        return found[0] if found else None

    def __str__(self) -> str:
        if not self._known:
            return "a name without an address so far: nobody"
        return ", ".join(sorted(map(str, self._known)))


def _address(text: str) -> _Address | None:
    """Return an address without its zone, IPv4 where it is mapped."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_loopback(text: str) -> bool:
    """Tell whether an address is one of this machine alone."""
    address = _address(text)
    return address is not None and address.is_loopback


def shown_peer(text: str) -> str:
    """Return a peer's address for people: IPv4 as such, also where it is mapped."""
    return str(_address(text) or text or "this peer")
