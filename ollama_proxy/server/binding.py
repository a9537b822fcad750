"""Bind the address that the proxy listens on, as Go's ``net.Listen`` does.

A wildcard (``0.0.0.0``, ``::`` or no host) is one socket for IPv6 and IPv4 if the
machine has both. A name is bound at its first IPv4 address, else at its first address.
Source: ``favoriteAddrFamily`` in Go's ``net/ipsock_posix.go``.
"""

import errno
import ipaddress
import socket
from typing import Any, Final, NamedTuple

from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.listen_address import host_and_port
from ollama_proxy.base.parsers import Listen

BACKLOG: Final = 1024

_ELSEWHERE = "set {setting} to another host:port"
_ADVICE = {
    errno.EADDRINUSE: f"stop what listens there, or {_ELSEWHERE}",
    errno.EADDRNOTAVAIL: "set {setting} to an address of this machine, or 0.0.0.0",
    errno.EACCES: f"this user may not take that port, so {_ELSEWHERE}",
    errno.EAFNOSUPPORT: "this machine has no IPv6, so set {setting} to 0.0.0.0",
}
_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT}


class _Place(NamedTuple):
    """Holds a family with an address of it."""

    family: int
    address: tuple[Any, ...]


def bind(listen: Listen, setting: str = "OLLAMA_HOST") -> socket.socket:
    """Bind the address before anything else happens, or explain why that failed.

    ``setting``: that has the address. Raises `StartupError`.
    """
    places = _resolved(listen, setting)
    try:
        return _listening(places)
    except OSError as error:
        where = host_and_port(listen.host, listen.port)
        advice = _ADVICE.get(error.errno or 0, _ADVICE[errno.EADDRINUSE])
        raise StartupError(
            f"can't listen on {where} ({_words(error)});"
            f" {advice.format(setting=setting)}"
        ) from error


def _resolved(listen: Listen, setting: str = "OLLAMA_HOST") -> list[_Place]:
    """Return where to listen. Raises `StartupError`."""
    try:
        return _places(listen)
    except (OSError, UnicodeError) as error:
        raise StartupError(
            f"the address {listen.host!r} can't be resolved ({_words(error)}); "
            f"set {setting} to host:port"
        ) from error


def _places(listen: Listen) -> list[_Place]:
    """Return where to listen, the second place for a machine without the first."""
    host, port = listen.host, listen.port
    everywhere = [_Place(socket.AF_INET6, ("::", port))]
    if host in {"", "0.0.0.0"}:  # noqa: S104 - what was asked for
        return [*everywhere, _Place(socket.AF_INET, ("0.0.0.0", port))]  # noqa: S104 - likewise
    if host == "::":
        return everywhere
    bare, _, zone = host.partition("%")
    if zone:
        scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
        return [_Place(socket.AF_INET6, (bare, port, 0, scope))]
    found = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    places = [_Place(family, address) for family, _, _, _, address in found]
    places.sort(key=lambda place: place.family != socket.AF_INET)
    return places[:1]


def _listening(places: list[_Place]) -> socket.socket:
    for place in places[:-1]:
        try:
            return _listening_at(place)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
    return _listening_at(places[-1])


def _listening_at(place: _Place) -> socket.socket:
    bound = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        if place.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place.address)
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def is_on_loopback(bound: socket.socket) -> bool:
    """Tell whether only this machine can connect."""
    return _is_loopback(bound.getsockname()[0])


def are_for_this_machine(*addresses: Listen | None) -> bool:
    """Tell the same of addresses that are not bound. Raises `StartupError`."""
    found = (_resolved(one)[0].address[0] for one in addresses if one is not None)
    return all(_is_loopback(str(address)) for address in found)


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if address.version == 6 else None  # noqa: PLR2004
    return (mapped or address).is_loopback
