"""Decide which ``Host`` is allowed by a server that listens on loopback only."""

import functools
from dataclasses import dataclass

from ollama_proxy.core.access.cors import host_name, is_local_name, is_own_address

_LONGEST_ADDRESS = 64
"""Characters of an address of this machine, with its zone; clients may send 1 MB."""


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """Holds the rules for ``Host``: ``machine`` is its name, ``addresses`` its own."""

    machine: str
    addresses: frozenset[str]

    def takes(self, host: str) -> bool:
        """Tell whether a request with this ``Host`` is taken."""
        if len(host) > _LONGEST_ADDRESS:
            return self._judge(host)
        return _judged(self, host)

    def _judge(self, host: str) -> bool:
        name = host_name(host)
        return self.is_own(name) or is_local_name(name, self.machine)

    def is_own(self, name: str) -> bool:
        """Tell whether a name is an own address; a long one can only be by its zone."""
        if len(name) > _LONGEST_ADDRESS:
            name, _, _zone = name.partition("%")
            if len(name) > _LONGEST_ADDRESS or ":" not in name:
                return False
        return _remembered(name, self.addresses)


@functools.lru_cache(maxsize=256)  # called for each request
def _judged(policy: HostPolicy, host: str) -> bool:
    return policy._judge(host)  # noqa: SLF001 - a part of the class but for its cache


# Parsing an address takes 3 µs.
_remembered = functools.lru_cache(maxsize=256)(is_own_address)
