"""Find where this process listens, so that no node has it call itself."""

import math
from collections.abc import Collection

import psutil

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.access.client_address import Address, parse_address
from ollama_proxy.core.nodes.addresses import OwnAddresses

_FRESH_S = 10.0


class OwnAddressBook:
    """Returns where we listen; the machine's addresses are read every 10 s at most."""

    def __init__(self, listening: Collection[tuple[str, int]], clock: Clock) -> None:
        self._clock = clock
        self._read_at = -math.inf
        self._own = OwnAddresses(tuple(listening))

    def now(self) -> OwnAddresses:
        """Return the addresses; a machine may get others, as it moves."""
        now = self._clock.now()
        if abs(now - self._read_at) >= _FRESH_S:
            self._read_at = now
            self._own = OwnAddresses(self._own.listening, _of_this_machine())
        return self._own


def _of_this_machine() -> frozenset[Address]:
    every = psutil.net_if_addrs().values()
    found = (parse_address(one.address) for addresses in every for one in addresses)
    return frozenset(address for address in found if address is not None)
