"""Build what decides on access: the gate of keys, and the rules before it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.config.access_settings import AuthMode
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.access.client_address import TrustedProxies
from ollama_proxy.core.access.cors import CorsPolicy
from ollama_proxy.core.access.hosts import HostPolicy
from ollama_proxy.core.access.keys import Key
from ollama_proxy.gateway.key_gate import KeyGate, Keys
from ollama_proxy.gateway.order_token import OrderToken
from ollama_proxy.server.access import AccessControl, AccessRule, Identify

_IS_NEEDED = {AuthMode.AUTO: None, AuthMode.KEYS: True, AuthMode.OFF: False}


@dataclass(frozen=True, slots=True)
class Door:
    """Holds how the proxy is reached, and by what its own commands prove themselves.

    ``hosts``: the rules for ``Host``. ``is_local``: only this machine can connect.
    """

    hosts: HostPolicy | None = None
    is_local: bool = False
    order_token: OrderToken | None = None


CLOSED_DOOR: Final = Door()
"""Takes any ``Host``, and no orders but by a key."""


def build_access(
    settings: Settings,
    keys: Keys,
    *,
    clock: Clock,
    door: Door,
    rules: Sequence[AccessRule] = (),
    identify: Identify | None = None,
    note_keyless: Callable[[str, str], None] | None = None,
    note_refused: Callable[[Key], None] | None = None,
) -> AccessControl:
    """Return what both servers ask about each request.

    ``identify``: returns the caller of a request, instead of the gate.
    ``note_keyless``, ``note_refused``: see `KeyGate`.
    """
    gate = KeyGate(
        keys,
        clock,
        is_needed=_IS_NEEDED[settings.auth],
        order_token=door.order_token,
        is_local=door.is_local,
        note_keyless=note_keyless if settings.auth is AuthMode.AUTO else None,
        note_refused=note_refused,
    )
    return AccessControl(
        CorsPolicy(settings.origins),
        door.hosts,
        rules,
        identify or gate.identify,
        lambda: gate.is_on,
        TrustedProxies(settings.trusted_proxies),
    )
