"""Define the metrics of keys: by name, of a bounded number of them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from ollama_proxy.core.access.usage import UsageRow

KEYS_SHOWN: Final = 100
"""How many keys have labels of their own: those that were used first."""

OTHER_KEYS: Final = "other"
"""Label of all further keys."""

_KEY = ("key",)
_REQUESTS = "Requests of a key that were sent to an instance"
_TOKENS = "Tokens of a key's requests, estimates included"
_ESTIMATED = "Tokens of a key's requests that are estimates"
_SECONDS = "How long instances worked on a key's requests"
_REFUSED = "Requests that were refused for their key: 403 or 429"


class KeyMetrics(Collector):
    """Counts what keys used since the start; never by an id, a text or a model.

    A request costs nothing: metrics are made, when they are asked, of the rows that
    were written since the start and of those that are not written yet.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sums: dict[str, UsageRow] = {}
        self._unwritten: Callable[[], Iterable[UsageRow]] = tuple
        registry.register(self)

    def watch(self, unwritten: Callable[[], Iterable[UsageRow]]) -> None:
        """Have the rows counted that are not written yet."""
        self._unwritten = unwritten

    def observe(self, used: UsageRow) -> None:
        """Count a row that was written."""
        _add(self._sums, used)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the metrics as they are now; called for each scrape."""
        requests = _counter("requests", _REQUESTS)
        tokens = CounterMetricFamily(
            "ollama_proxy_key_tokens", _TOKENS, labels=("key", "part")
        )
        estimated = _counter("tokens_estimated", _ESTIMATED)
        seconds = _counter("instance_seconds", _SECONDS)
        refused = _counter("refused", _REFUSED)
        sums = dict(self._sums)
        for row in self._unwritten():
            _add(sums, row)
        for name, used in sums.items():
            requests.add_metric((name,), used.requests)
            tokens.add_metric((name, "prompt"), used.prompt_tokens)
            tokens.add_metric((name, "output"), used.output_tokens)
            estimated.add_metric((name,), used.estimated)
            seconds.add_metric((name,), used.seconds)
            refused.add_metric((name,), used.refused)
        yield from (requests, tokens, estimated, seconds, refused)


def _add(sums: dict[str, UsageRow], used: UsageRow) -> None:
    """Add a row to the sums of its key, or of all further keys."""
    name = used.key_name
    before = sums.get(name)
    if before is None and len(sums) >= KEYS_SHOWN:
        name = OTHER_KEYS
        before = sums.get(name)
    sums[name] = used if before is None else before.plus(used)


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"ollama_proxy_key_{name}", text, labels=_KEY)
