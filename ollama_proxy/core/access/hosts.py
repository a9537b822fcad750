"""Decide which ``Host`` is allowed: on loopback by Ollama's rules, else by our own.

A page whose name resolves to this server (DNS rebinding) is of the same origin, so that
only its name, in ``Host``, tells it from a page of the user's own.
"""

import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Protocol

from ollama_proxy.core.access.cors import host_name, is_local_name, is_own_address

_LONGEST_ADDRESS = 64
"""Characters of an address of this machine, with its zone; clients may send 1 MB."""

_LONGEST_NAME = 253
"""Characters of a name in the DNS."""

OWN_SUFFIXES: Final = (
    ".internal",
    ".local",
    ".localhost",
    ".lan",
    ".home.arpa",
    ".svc",
    ".cluster.local",
    ".ts.net",
)
"""Endings of names that no stranger can register, or not without a login."""

_LABEL = r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_PATTERN = re.compile(rf"\*|(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?")


def is_host_pattern(text: str) -> bool:
    """Tell whether a text names hosts: a name, ``*.`` and a name, or ``*``."""
    return len(text) <= _LONGEST_NAME and _PATTERN.fullmatch(text) is not None


class HostRules(Protocol):
    """Decides which ``Host`` is taken."""

    def takes(self, host: str) -> bool:
        """Tell whether a request with this ``Host`` is taken."""


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """Holds the rules for ``Host``: ``machine`` is its name, ``addresses`` its own.

    ``allowed``: more names, as for `PublicHosts`.
    """

    machine: str
    addresses: frozenset[str]
    allowed: tuple[str, ...] = ()

    def takes(self, host: str) -> bool:
        """Tell whether a request with this ``Host`` is taken."""
        if len(host) > _LONGEST_ADDRESS:
            return self._judge(host)
        return _judged(self, host)

    def _judge(self, host: str) -> bool:
        name = host_name(host)
        if self.is_own(name) or is_local_name(name, self.machine):
            return True
        bare = name.lower().removesuffix(".")
        return any(_is_meant(bare, entry) for entry in self.allowed)

    def is_own(self, name: str) -> bool:
        """Tell whether a name is an own address; only one with a zone may be long."""
        if len(name) > _LONGEST_ADDRESS:
            name, _, _zone = name.partition("%")
            if len(name) > _LONGEST_ADDRESS or ":" not in name:
                return False
        return _remembered(name, self.addresses)


@dataclass(frozen=True, slots=True)
class PublicHosts:
    """Holds the rules for ``Host`` on an address that other machines reach.

    ``allowed``: names that are not foreign, in lower case: ``ollama.example.com``,
    ``*.example.com`` (not ``example.com`` itself), ``*``.
    """

    allowed: tuple[str, ...] = ()

    def takes(self, host: str) -> bool:
        """Tell whether a ``Host`` is not foreign."""
        if len(host) > _LONGEST_ADDRESS:
            return self._judge(host)
        return _judged(self, host)

    def _judge(self, host: str) -> bool:
        name = host_name(host).lower().removesuffix(".")
        if len(name) > _LONGEST_NAME:
            return False
        if ":" in name:  # no name has one
            return _is_address(name)
        return (
            "." not in name
            or name.endswith(OWN_SUFFIXES)
            or any(_is_meant(name, entry) for entry in self.allowed)
            or _is_address(name)
        )


def _is_meant(name: str, entry: str) -> bool:
    if entry == "*":
        return True
    if entry.startswith("*."):
        return name.endswith(entry[1:].removesuffix("."))
    return name == entry.removesuffix(".")


def _is_address(name: str) -> bool:
    """Tell whether a name is an IP address: no DNS is asked, so nothing is rebound."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=256)  # called for each request
def _judged(policy: HostPolicy | PublicHosts, host: str) -> bool:
    return policy._judge(host)  # noqa: SLF001 - a part of the classes but for its cache


# Parsing an address takes 3 µs.
_remembered = functools.lru_cache(maxsize=256)(is_own_address)
