"""Take beats in, whichever server has read them."""

from typing import Any, Protocol

import msgspec

from ollama_proxy.core.access.client_address import parse_address
from ollama_proxy.core.access.facts import HeaderView
from ollama_proxy.core.nodes.beat import Beat, parse_beat
from ollama_proxy.hub.ports import BeatAccess, Sender


class Registry(Protocol):
    """Takes beats in: see `ollama_proxy.hub.registry.NodeRegistry`."""

    def last_beat(self, node_id: str) -> Beat | None:
        """Return the last beat of a node, to read the next one by."""

    def beat(self, beat: Beat, sender: Sender) -> dict[str, Any]:
        """Take in a beat; return the answer. Raises `BeatError`."""


class BeatDoor:
    """Judges the sender of a beat, and takes the beat in."""

    def __init__(self, registry: Registry, access: BeatAccess) -> None:
        self._registry, self._access = registry, access

    def admit(self, peer: str, headers: HeaderView) -> Sender:
        """Return the sender of a beat, by its head alone. Raises `BeatError`.

        ``peer``: the address of the connection.
        """
        address = str(parse_address(peer) or peer)  # IPv4 as such
        return self._access.admit(address, headers)

    def take(self, sender: Sender, body: bytes) -> bytes:
        """Take in the body of a beat; return that of the answer. Raises `BeatError`."""
        beat = parse_beat(body, self._registry.last_beat)
        return msgspec.json.encode(self._registry.beat(beat, sender)) + b"\n"
