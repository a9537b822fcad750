"""The settings on nodes without a key."""

from pathlib import Path

import pytest

from ollama_proxy.composition.legacy import legacy_rule, legacy_warning, want_keys
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings
from ollama_proxy.store.memory import MemoryStore
from tests.base.test_container_peers import ROUTE, root_with
from tests.fakes.keys import GOOD, put_keys


def settings(**env: str) -> Settings:
    return load_settings({"OLLAMA_PROXY_HUB": "true", **env}, None)


def test_the_gateway_of_a_container_is_nobody(tmp_path: Path) -> None:
    root = root_with(tmp_path, route=ROUTE)
    outside = legacy_rule(settings(), is_local=False, root=root)
    assert outside.refusal("172.17.0.1", (), was_key_made=False) == ""
    (root / ".dockerenv").touch()
    inside = legacy_rule(settings(), is_local=False, root=root)
    assert "gateway" in inside.refusal("172.17.0.1", (), was_key_made=False)


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, False),
        ({"OLLAMA_PROXY_AUTH": "keys"}, True),
        ({"OLLAMA_PROXY_KEYS_FILE": "/tmp/keys.toml"}, True),
    ],
)
def test_settings_that_demand_keys_count_as_a_key(
    env: dict[str, str], *, wanted: bool
) -> None:
    assert want_keys(settings(**env), was_made=False) is wanted
    assert want_keys(settings(**env), was_made=True)


def test_the_warning_ends_with_the_first_key() -> None:
    store = MemoryStore()
    assert legacy_warning(settings(), store, is_local=False)
    put_keys(store, GOOD)
    assert legacy_warning(settings(), store, is_local=False) == ""
    on = settings(OLLAMA_PROXY_HUB_LEGACY="on")
    assert legacy_warning(on, store, is_local=False)
