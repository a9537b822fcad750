"""Decide from whom a beat without a key is taken. Pure.

Former agents know no keys. What is taken for a node gets prompts, so only peers on
private networks are, and only as long as there never was a key.
"""

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ollama_proxy.core.access.client_address import Address, parse_address
from ollama_proxy.core.access.forwarding import are_forwarded

SETTING: Final = "OLLAMA_PROXY_HUB_LEGACY"

PRIVATE: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # shared address space: RFC 6598, and Tailscale's
        "fc00::/7",  # unique local addresses: RFC 4193
    )
)
"""Networks whose hosts no stranger on the Internet is; link-local ones are not here."""

_END_IT = (
    f"as {SETTING} lets machines register without a key; to end that, join them with"
    f" `ollama-proxy node-token`, or set {SETTING}=off"
)
_JOIN = "run the line that `ollama-proxy node-token` prints on that machine"


class LegacyMode(StrEnum):
    """Says whether beats without a key are taken.

    ``AUTO``: until a key of a node or a client is made; ``ON``: also afterwards.
    """

    AUTO = "auto"
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class LegacyRule:
    """Holds what does not change with the beat.

    ``is_loopback_bind``: only this machine can connect to the hub's listener.
    ``gateways``: our default gateways if we run in a container, else nothing. An engine
    that relays ports shows every peer, the Internet's too, as its gateway.
    """

    mode: LegacyMode
    is_loopback_bind: bool = False
    gateways: Collection[Address] = ()

    def is_open(self, *, was_key_made: bool) -> bool:
        """Tell whether any beat without a key is taken.

        ``was_key_made``: there ever was a key of a node or a client.
        """
        return self.mode is LegacyMode.ON or (
            self.mode is LegacyMode.AUTO and not was_key_made
        )

    def warning(self, *, was_key_made: bool) -> str:
        """Return what people must know while any is taken; "" if none is."""
        if not self.is_open(was_key_made=was_key_made):
            return ""
        who, where = "anybody on this network", ""
        if self.is_loopback_bind:
            who, where = "every program on this machine", " here"
        return f"{who} can register a machine{where} and read prompts, {_END_IT}"

    def refusal(
        self, peer: str, header_names: Iterable[str], *, was_key_made: bool
    ) -> str:
        """Return why a beat without a key is not taken, a sentence; "" if it is.

        ``peer``: the address of the connection, whatever headers say.
        """
        if self.mode is LegacyMode.OFF:
            return f"this hub takes nodes with a key alone ({SETTING}=off); {_JOIN}"
        if not self.is_open(was_key_made=was_key_made):
            return (
                "this hub takes nodes with a key alone since its first key was made;"
                f" {_JOIN}, or set {SETTING}=on on the hub"
            )
        if are_forwarded(header_names):
            return (
                "another server relays this beat, so its sender is not known; have the"
                f" agent ask the hub itself, or {_JOIN}"
            )
        return self._refusal_of(parse_address(peer))

    def _refusal_of(self, address: Address | None) -> str:
        if address is None:
            return f"a beat without a key is not taken from an unknown peer; {_JOIN}"
        if address in self.gateways:
            return (
                f"{address} is the gateway of the hub's own container, which stands for"
                " every machine that comes through it; run the hub's container with"
                f" --network host, or {_JOIN}"
            )
        if address.is_loopback:
            if self.is_loopback_bind:
                return ""
            return (
                "a beat without a key is taken from this machine only where the hub"
                " listens on loopback alone (OLLAMA_PROXY_HUB_LISTEN=127.0.0.1:8000,"
                f" and OLLAMA_HOST likewise); {_JOIN}"
            )
        if any(address in network for network in PRIVATE):
            return ""
        return (
            f"a beat without a key is not taken from {address}, which is no private"
            f" address; {_JOIN}"
        )
