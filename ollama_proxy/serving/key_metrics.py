"""Define the metrics of keys: by name, of a bounded number of them."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter

from ollama_proxy.core.access.usage import UsageRow

KEYS_SHOWN: Final = 100
"""How many keys have labels of their own: those that were used first."""

OTHER_KEYS: Final = "other"
"""Label of all further keys."""


class KeyMetrics:
    """Counts what keys used since the start; never by an id, a text or a model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._names: set[str] = set()
        self._requests = Counter(
            "ollama_proxy_key_requests",
            "Requests of a key that were sent to an instance",
            ("key",),
            registry=registry,
        )
        self._tokens = Counter(
            "ollama_proxy_key_tokens",
            "Tokens of a key's requests, estimates included",
            ("key", "part"),
            registry=registry,
        )
        self._estimated = Counter(
            "ollama_proxy_key_tokens_estimated",
            "Tokens of a key's requests that are estimates",
            ("key",),
            registry=registry,
        )
        self._seconds = Counter(
            "ollama_proxy_key_instance_seconds",
            "How long instances worked on a key's requests",
            ("key",),
            registry=registry,
        )
        self._refused = Counter(
            "ollama_proxy_key_refused",
            "Requests that were refused for their key: 403 or 429",
            ("key",),
            registry=registry,
        )

    def observe(self, used: UsageRow) -> None:
        """Count what one request used."""
        name = self._label(used.key_name)
        self._requests.labels(name).inc(used.requests)
        self._tokens.labels(name, "prompt").inc(used.prompt_tokens)
        self._tokens.labels(name, "output").inc(used.output_tokens)
        self._estimated.labels(name).inc(used.estimated)
        self._seconds.labels(name).inc(used.seconds)
        self._refused.labels(name).inc(used.refused)

    def _label(self, name: str) -> str:
        if name in self._names:
            return name
        if len(self._names) >= KEYS_SHOWN:
            return OTHER_KEYS
        self._names.add(name)
        return name
