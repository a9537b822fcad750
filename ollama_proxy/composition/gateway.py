"""Build what knows the keys of clients: one of each for the whole proxy."""

from dataclasses import dataclass

from ollama_proxy.base.clock import Clock
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.gateway.key_changes import KeyChanges
from ollama_proxy.gateway.key_limits import KeyLimits
from ollama_proxy.gateway.keyring import Keyring
from ollama_proxy.store.ports import Store


@dataclass(frozen=True, slots=True)
class Gateway:
    """Holds the keys, the orders about them, the audit, and what keys may use."""

    keyring: Keyring
    audit: Audit
    changes: KeyChanges
    limits: KeyLimits


def build_gateway(store: Store, clock: Clock) -> Gateway:
    """Return the gateway; nothing runs yet."""
    keyring, audit = Keyring(store, clock), Audit(store, clock)
    changes, limits = KeyChanges(keyring, audit, clock), KeyLimits(store, clock)
    return Gateway(keyring, audit, changes, limits)
