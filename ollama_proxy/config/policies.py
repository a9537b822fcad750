"""Translate settings for parts that take neither settings nor backends. Pure."""

import math

from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import Policy
from ollama_proxy.core.ollama.model_fate import WakeRule
from ollama_proxy.core.ollama.request_fields import Need
from ollama_proxy.fleet.backend import Traits


def policy_of(settings: Settings) -> Policy:
    """Return the times and counts for the lifecycle."""
    return Policy(
        idle_timeout_s=settings.idle_timeout,
        start_timeout_s=settings.start_timeout,
        drain_timeout_s=settings.drain_timeout,
        backoff_s=settings.backoff,
        backoff_max_s=settings.max_backoff,
        failure_limit=settings.failure_limit,
        launch_limit=settings.launch_limit,
        max_lifetime_s=(
            math.inf if settings.max_lifetime is None else settings.max_lifetime
        ),
    )


def needs_without_wake(settings: Settings, traits: Traits) -> set[Need]:
    """Return which requests wake no instance, besides those that never do.

    Cloud models need the server's key, which a new disk does not have.
    """
    spared = set() if settings.loads_keep_awake else {Need.LOAD}
    return spared if traits.persistent_models else spared | {Need.CLOUD}


def wake_rule_of(settings: Settings, traits: Traits) -> WakeRule:
    """Return whether unknown models wake; by default they do on an existing server."""
    rule = WakeRule(settings.wake_for_unknown_models)
    is_free = traits.externally_managed and rule is WakeRule.AUTO
    return WakeRule.TRUE if is_free else rule
