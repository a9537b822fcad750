"""What the settings mean to the parts that take none."""

import math

import pytest

from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.policies import (
    needs_without_wake,
    policy_of,
    wake_rule_of,
)
from ollama_proxy.core.ollama.model_fate import WakeRule
from ollama_proxy.core.ollama.request_fields import Need
from ollama_proxy.fleet.backend import Traits


def test_an_instance_lives_for_ever_if_nobody_says_how_long() -> None:
    assert policy_of(load_settings({})).max_lifetime_s == math.inf
    limited = load_settings({"OLLAMA_PROXY_MAX_LIFETIME": "2h"})
    assert policy_of(limited).max_lifetime_s == 7200.0


@pytest.mark.parametrize(
    ("keeps", "loads", "spared"),
    [
        (True, "true", set()),
        (False, "true", {Need.CLOUD}),
        (True, "false", {Need.LOAD}),
        (False, "false", {Need.CLOUD, Need.LOAD}),
    ],
)
def test_loads_and_models_of_the_cloud_wake_nothing_where_they_cannot_serve(
    *, keeps: bool, loads: str, spared: set[Need]
) -> None:
    settings = load_settings({"OLLAMA_PROXY_LOADS_KEEP_AWAKE": loads})

    assert needs_without_wake(settings, Traits(persistent_models=keeps)) == spared


@pytest.mark.parametrize(
    ("given", "managed", "rule"),
    [
        ("auto", True, WakeRule.TRUE),
        ("auto", False, WakeRule.AUTO),
        ("false", True, WakeRule.FALSE),
        ("true", False, WakeRule.TRUE),
    ],
)
def test_a_server_that_is_there_anyway_is_asked_for_unknown_models(
    *, given: str, managed: bool, rule: WakeRule
) -> None:
    settings = load_settings({"OLLAMA_PROXY_WAKE_FOR_UNKNOWN_MODELS": given})

    assert wake_rule_of(settings, Traits(externally_managed=managed)) is rule
