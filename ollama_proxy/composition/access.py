"""Build what decides on access: the gate of keys, and the rules before it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.listen_address import host_and_port
from ollama_proxy.config.access_settings import AuthMode
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.access.client_address import TrustedProxies
from ollama_proxy.core.access.cors import CorsPolicy
from ollama_proxy.core.access.hosts import HostPolicy, PublicHosts
from ollama_proxy.core.access.keys import Key
from ollama_proxy.gateway.exposure import Exposure
from ollama_proxy.gateway.key_gate import KeyGate, Keys
from ollama_proxy.gateway.order_token import OrderToken
from ollama_proxy.gateway.sessions import Sessions
from ollama_proxy.server.access import AccessControl, AccessRule, Identify
from ollama_proxy.server.binding import are_for_this_machine
from ollama_proxy.server.foreign_hosts import ForeignHosts
from ollama_proxy.server.page.login_page import refused
from ollama_proxy.store.ports import KeyStore

_IS_NEEDED = {AuthMode.AUTO: None, AuthMode.KEYS: True, AuthMode.OFF: False}


@dataclass(frozen=True, slots=True)
class Door:
    """Holds how the proxy is reached, and by what its own commands prove themselves.

    ``hosts``: the rules for ``Host``; None: those of `PublicHosts`. ``is_local``: only
    this machine can connect. ``listening``: the host and port of each bound socket.
    """

    hosts: HostPolicy | None = None
    is_local: bool = False
    order_token: OrderToken | None = None
    listening: tuple[tuple[str, int], ...] = ()


CLOSED_DOOR: Final = Door()
"""Takes no orders but by a key."""


@dataclass(frozen=True, slots=True)
class Access:
    """Holds what decides on access, and tells how open the proxy is."""

    control: AccessControl
    exposure: Exposure


def build_access(
    settings: Settings,
    keys: Keys,
    *,
    clock: Clock,
    door: Door,
    rules: Sequence[AccessRule] = (),
    identify: Identify | None = None,
    sessions: Sessions | None = None,
    note_keyless: Callable[[str, str], None] | None = None,
    note_refused: Callable[[Key], None] | None = None,
) -> Access:
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
        sessions=sessions,
        note_keyless=note_keyless if settings.auth is AuthMode.AUTO else None,
        note_refused=note_refused,
        refused=refused,
    )
    if door.hosts is None:
        rules = (ForeignHosts(PublicHosts(settings.allowed_hosts)), *rules)
    origins = CorsPolicy(settings.origins)

    def asks() -> bool:
        return gate.is_on

    control = AccessControl(
        origins,
        door.hosts,
        rules,
        identify or gate.identify,
        asks,
        TrustedProxies(settings.trusted_proxies),
    )
    return Access(control, exposure(settings, asks, is_local=door.is_local))


def exposure(
    settings: Settings, needs_key: Callable[[], bool], *, is_local: bool
) -> Exposure:
    """Return how open a proxy with these settings is."""
    listen, setting = settings.listen, "OLLAMA_HOST"
    hub = settings.hub_address
    if not is_local and hub is not None and are_for_this_machine(listen):
        listen, setting = hub, "OLLAMA_PROXY_HUB_LISTEN"
    return Exposure(
        host_and_port(listen.host, listen.port),
        is_local,
        needs_key,
        is_off=settings.auth is AuthMode.OFF,
        setting=setting,
    )


def needs_key(settings: Settings, store: KeyStore) -> bool:
    """Tell whether requests need a key, while no proxy runs."""
    is_needed = _IS_NEEDED[settings.auth]
    if is_needed is not None:
        return is_needed
    return settings.keys_file is not None or store.are_keys_needed()
