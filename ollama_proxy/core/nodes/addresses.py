"""Decide which addresses of a node the hub may call. Pure.

A node names its own addresses, so it could have the hub ask any server that the hub
reaches. What passes here is asked for a proof before anything else is sent there.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from ollama_proxy.core.access.client_address import Address, parse_address

MOST: Final = 3
"""How many addresses of a node are called: the beat's own, and those it names."""

_HIGHEST_PORT = 65535
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_NEVER: Final[Sequence[tuple[_Network, str]]] = tuple(
    (ipaddress.ip_network(network), why)
    for network, why in (
        ("0.0.0.0/8", "unspecified"),
        ("::/128", "unspecified"),
        ("169.254.0.0/16", "link-local"),  # clouds tell secrets there: 169.254.169.254
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("224.0.0.0/4", "multicast"),
        ("ff00::/8", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
        # Where clouds tell machines their secrets, outside of link-local networks.
        ("fd00:ec2::/32", "a cloud's metadata service"),
        ("fd20:ce::254/128", "a cloud's metadata service"),
        ("100.100.100.200/32", "a cloud's metadata service"),
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("192.0.0.0/24", "a cloud's metadata service"),
        # An IPv4 address within one of IPv6, which a gateway would ask in our place.
        ("::/96", "IPv4 in disguise"),
        ("64:ff9b::/96", "IPv4 in disguise"),
        ("64:ff9b:1::/48", "IPv4 in disguise"),
        ("2001::/32", "IPv4 in disguise"),
        ("2002::/16", "IPv4 in disguise"),
    )
)


@dataclass(frozen=True, slots=True)
class OwnAddresses:
    """Knows where this process listens.

    ``machine``: the addresses of this machine, for ports on every address.
    """

    listening: tuple[tuple[str, int], ...]
    machine: frozenset[Address] = frozenset()

    def has(self, address: Address, port: int) -> bool:
        """Tell whether a call to an address and port would reach this process."""
        return any(
            port == own_port and self._is_at(host, address)
            for host, own_port in self.listening
        )

    def _is_at(self, host: str, address: Address) -> bool:
        bound = parse_address(host)
        if bound is not None and not bound.is_unspecified:
            return address == bound
        if bound is None and host not in {"", "localhost"}:
            return True  # a name: whatever it is for, its port is ours
        return address.is_loopback or address in self.machine


@dataclass(frozen=True, slots=True)
class Claim:
    """Holds where a node says it is called.

    ``peer``: the address that sent its beat. ``named``: those in the beat.
    ``is_former``: it has no key, so what it names counts for nothing.
    """

    peer: str
    port: int
    named: tuple[str, ...] = ()
    is_former: bool = False


@dataclass(frozen=True, slots=True)
class Allowed:
    """Holds the addresses to call, best first; ``faults``: why not others."""

    addresses: Sequence[str]
    faults: Sequence[str] = ()


@lru_cache(maxsize=4096)  # asked at each beat, and a node tells the same each time
def allowed_addresses(claim: Claim, own: OwnAddresses) -> Allowed:
    """Return which addresses of a claim may be called.

    First the one that sent the beat: that way is known to work.
    """
    peer = str(parse_address(claim.peer) or claim.peer)  # without a zone, IPv4 as such
    given = [peer] if claim.is_former else [peer, *claim.named]
    addresses: list[str] = []
    faults: list[str] = []
    for text in given[: MOST + 1]:
        fault = address_fault(text, claim, own)
        found = parse_literal(text)
        if fault or found is None:
            faults.append(fault)
        elif str(found) not in addresses:
            addresses.append(str(found))
    return Allowed(addresses[:MOST], faults)


def address_fault(text: str, claim: Claim, own: OwnAddresses) -> str:
    """Return why an address is never called, a sentence; "" if it may be."""
    shown = text[:64]
    address = parse_literal(text)
    if address is None:
        return f"{shown!r} is no IP address, and the hub asks no name of a node's"
    if not 0 < claim.port <= _HIGHEST_PORT:
        return f"{claim.port} is no port; NODE_PORT has 1 to {_HIGHEST_PORT}"
    if own.has(address, claim.port):
        return f"{address} port {claim.port} is the hub itself; set another NODE_PORT"
    if address.is_loopback:
        is_near = is_loopback(claim.peer)
        return "" if is_near else f"{address} is another machine's own for a node there"
    return next(
        (f"{address} is never called: it is {why}" for why in _kinds(address)), ""
    )


def parse_literal(text: str) -> Address | None:
    """Return an address that is written as such, IPv4 where it is mapped to IPv6.

    Names, ports, brackets, zones, octal and hexadecimal numbers are none.
    """
    if not set(text) <= set("0123456789abcdefABCDEF.:"):
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


def is_loopback(text: str) -> bool:
    """Tell whether a peer's address is one of this machine alone."""
    address = parse_address(text)
    return address is not None and address.is_loopback


def _kinds(address: Address) -> Iterator[str]:
    """Yield what an address is that must never be called."""
    for network, why in _NEVER:
        if address in network:
            yield why
