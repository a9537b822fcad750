"""Read the settings on nodes without a key: whether any is taken, and from where."""

from pathlib import Path

from ollama_proxy.base.container_peers import default_gateways, is_in_container
from ollama_proxy.config.access_settings import AuthMode
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.nodes.legacy_rule import LegacyRule
from ollama_proxy.store.ports import Store

_ROOT = Path("/")


def legacy_rule(
    settings: Settings, *, is_local: bool, root: Path = _ROOT
) -> LegacyRule:
    """Return the rule; ``is_local``: only this machine can connect."""
    return LegacyRule(
        settings.hub_legacy,
        is_loopback_bind=is_local,
        gateways=default_gateways(root) if is_in_container(root) else (),
    )


def want_keys(settings: Settings, *, was_made: bool) -> bool:
    """Tell whether there ever was a key for clients, or the settings demand keys."""
    is_set = settings.keys_file is not None or settings.auth is AuthMode.KEYS
    return was_made or is_set


def legacy_warning(settings: Settings, store: Store, *, is_local: bool) -> str:
    """Return what people must know while nodes without a key are taken; else ""."""
    was_made = want_keys(settings, was_made=store.are_keys_needed())
    rule = LegacyRule(settings.hub_legacy, is_loopback_bind=is_local)
    return rule.warning(was_key_made=was_made or store.was_node_key_made())
