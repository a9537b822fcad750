"""Find the addresses behind which a container's engine hides its peers.

An engine that relays a published port shows every peer, strangers too, as the
container's default gateway.
"""

import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_MARKS: Final = (
    ".dockerenv",
    "run/.containerenv",
    "run/secrets/kubernetes.io",
    "var/run/secrets/kubernetes.io",
)
_LEAST_FIELDS_V4 = 8
_LEAST_FIELDS_V6 = 10
_EVERYTHING_V4 = ("00000000", "00000000")
_EVERYTHING_V6 = ("0" * 32, "00")


def is_in_container(root: Path) -> bool:
    """Tell whether a container engine left its mark; ``root``: the folder ``/``."""
    return any((root / mark).exists() for mark in _MARKS)


def default_gateways(root: Path) -> frozenset[Address]:
    """Return the default gateways of the machine; none where there is no ``/proc``."""
    v4 = _gateways_v4(_read(root / "proc/net/route"))
    v6 = _gateways_v6(_read(root / "proc/net/ipv6_route"))
    return frozenset(one for one in (*v4, *v6) if not one.is_unspecified)


def _gateways_v4(table: str) -> Iterator[Address]:
    """Yield them from ``/proc/net/route``: hexadecimal, the machine's byte order."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < _LEAST_FIELDS_V4:
            continue
        if (fields[1], fields[7]) == _EVERYTHING_V4:
            try:
                yield ipaddress.IPv4Address(struct.pack("=I", int(fields[2], 16)))
            except (ValueError, struct.error):
                continue


def _gateways_v6(table: str) -> Iterator[Address]:
    """Yield them from ``/proc/net/ipv6_route``: 32 hexadecimal digits."""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < _LEAST_FIELDS_V6 or tuple(fields[:2]) != _EVERYTHING_V6:
            continue
        try:
            yield ipaddress.IPv6Address(bytes.fromhex(fields[4]))
        except ValueError:
            continue


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
