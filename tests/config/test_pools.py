"""Pools and offers of the settings."""

from ollama_proxy.config.loader import load_settings


def test_without_tables_there_is_one_pool_with_one_instance_of_the_backend() -> None:
    settings = load_settings(
        {"OLLAMA_PROXY_IDLE_TIMEOUT": "5m", "OLLAMA_PROXY_HOLD": "1m"}
    )

    (pool,), (offer,) = settings.pools, settings.offers
    assert (pool.name, pool.offers, pool.uploads) == ("default", (offer,), True)
    assert [glob.text for glob in pool.models] == ["*"]
    assert (pool.policy.idle_timeout_s, pool.hold_s) == (300.0, 60.0)
    assert (pool.policy.min_instances, pool.policy.max_instances) == (0, 1)
    assert (offer.name, offer.backend, offer.slots) == ("local", "local", None)
    assert offer.settings is settings.of_backend
