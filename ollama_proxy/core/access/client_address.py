"""Find the address of a client behind gateways that the owner trusts.

Pure. A gateway appends the address that it was asked from to ``X-Forwarded-For``, so
only what trusted gateways have appended, at the right end, is not the client's to
choose.
"""

import functools
import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_GATEWAYS: Final = 32
"""How many addresses of one request are looked at; a real chain has a few."""

MOST_BYTES: Final = 4096
"""How much of such headers is looked at, from the right."""

_LONGEST = len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%0123456789abcdef]:65535")
_PORT = re.compile(r":[0-9]{1,5}")
_PARAMETER = re.compile(r'([^\s;,="\\]+)=(?:([^\s;,"\\]+)|"([^;,"\\]*)")')
"""A parameter of ``Forwarded`` (RFC 7239 §4), without quoted separators.

An element with a separator in quotes is not read: what a gateway quotes (``host``) may
be of the client's making.
"""


class TrustedProxies:
    """Holds the gateways whose headers are believed, as networks in CIDR notation."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def has(self, address: Address) -> bool:
        """Tell whether an address is that of a trusted gateway."""
        return any(address in network for network in self._networks)

    def client(
        self, peer: str, forwarded_for: Sequence[str], forwarded: Sequence[str]
    ) -> str:
        """Return the address of the client: the rightmost that is no trusted gateway.

        ``peer``: of the connection. ``forwarded_for``, ``forwarded``: the values of
        ``X-Forwarded-For`` and of ``Forwarded``, in the order of their lines; the
        latter counts only without the former. They count for nothing unless the peer is
        trusted. What is no address ends the search: the last gateway found is returned.
        """
        found = parse_address(peer)
        if found is None:
            return peer
        if self.has(found):
            values = forwarded_for or forwarded
            read = _forwarded_address if not forwarded_for else parse_address
            for text in _from_the_right(values):
                address = read(text)
                if address is None:
                    break
                found = address
                if not self.has(address):
                    break
        return str(found)


NO_PROXIES: Final = TrustedProxies()
"""Believes no gateway: the client's address is that of its connection."""


def parse_address(text: str) -> Address | None:
    """Return an address, with or without a port, in IPv4 if it is one; None for others.

    IPv6 may be in brackets; a zone (``%eth0``) is left out, since it means something on
    one machine only.
    """
    text = text.strip(" \t")
    return _parsed(text) if len(text) <= _LONGEST else None


@functools.lru_cache(maxsize=1024)
def _parsed(text: str) -> Address | None:
    """Return the address in a text without blanks around it."""
    host, port = text, ""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed or ":" not in host:
            return None
    elif text.count(":") == 1:
        host, _, digits = text.partition(":")
        port = f":{digits}"
    if port and not _PORT.fullmatch(port):
        return None
    try:
        address = ipaddress.ip_address(host.partition("%")[0] if ":" in host else host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


def _forwarded_address(element: str) -> Address | None:
    """Return the address in an element of ``Forwarded``; None if it names not one."""
    found = []
    for parameter in element.split(";"):
        match = _PARAMETER.fullmatch(parameter.strip(" \t"))
        if match is None:
            return None
        if match[1].lower() == "for":
            found.append(match[2] or match[3] or "")
    return parse_address(found[0]) if len(found) == 1 else None


def _from_the_right(values: Sequence[str]) -> Iterator[str]:
    """Yield the elements of a header's lines, the last first; empty ones are none.

    An element that begins beyond `MOST_BYTES` is yielded as "", which is no address.
    """
    left, count = MOST_BYTES, 0
    for value in reversed(values):
        text = value[-left:] if len(value) > left else value
        is_cut, left = len(value) > left, left - len(text)
        while True:
            rest, comma, element = text.rpartition(",")
            count += 1
            if count > MOST_GATEWAYS or (is_cut and not comma):
                yield ""
                return
            if element.strip(" \t"):
                yield element
            if not comma:
                break
            text = rest
        if left <= 0:
            yield ""
            return
