"""Define every metric, in a registry of its own per proxy.

Labels have closed sets of values, all of which exist from the start, so that a
dashboard shows zero and not a gap; only those of keys come with their first request. No
label holds text from a client.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from ollama_proxy.core.lifecycle.boot_stages import STAGE_NAMES
from ollama_proxy.core.lifecycle.record import Record, State
from ollama_proxy.core.ollama.routes import Kind
from ollama_proxy.serving.key_metrics import KeyMetrics
from ollama_proxy.serving.pool_metrics import PoolMetrics

OUTCOMES = (
    "relayed",
    "asleep",
    "provisioning",
    "answered",
    "refused",
    "broken",
    "abandoned",
    "interrupted",
)
_LAUNCH_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 90, 120, 180, 300, 600, 1200, 1800)
_WAIT_BUCKETS = (0.001, 0.01, 0.1, 1, 5, 15, 30, 60, 120, 300, 600)


class Metrics:
    """Counts requests, launches and their outcomes. One object per proxy."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ollama_proxy_requests",
            "Requests by what they needed and what became of them",
            ("kind", "outcome"),
            registry=self.registry,
        )
        self.wait = Histogram(
            "ollama_proxy_request_wait_seconds",
            "How long requests waited for a ready instance",
            buckets=_WAIT_BUCKETS,
            registry=self.registry,
        )
        self.transitions = Counter(
            "ollama_proxy_instance_transitions",
            "Changes of an instance's state, by the state that was entered",
            ("state",),
            registry=self.registry,
        )
        self.launch = Histogram(
            "ollama_proxy_instance_start_duration_seconds",
            "From wake to ready, launches that became ready",
            buckets=_LAUNCH_BUCKETS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "ollama_proxy_boot_stage_seconds",
            "How long each stage took of launches that became ready",
            ("backend", "stage"),
            buckets=_LAUNCH_BUCKETS,
            registry=self.registry,
        )
        self.pools = PoolMetrics(self.registry)
        self.keys = KeyMetrics(self.registry)
        self._request_counters = {
            (kind, outcome): self.requests.labels(kind.value, outcome)
            for kind in Kind
            for outcome in OUTCOMES
        }
        for state in State:
            self.transitions.labels(state.value)

    def watch(
        self,
        *,
        in_flight: Callable[[], float],
        waiting: Callable[[], float],
        ready: Callable[[], float],
    ) -> None:
        """Have gauges read from the pool at each scrape."""
        for name, text, function in (
            ("requests_in_flight", "Leases held now", in_flight),
            ("requests_waiting", "Requests that wait for an instance now", waiting),
            ("instances_ready", "Instances that can serve now", ready),
        ):
            gauge = Gauge(f"ollama_proxy_{name}", text, registry=self.registry)
            gauge.set_function(function)

    def count_request(self, kind: Kind, outcome: str) -> None:
        """Count one request; ``outcome`` is one of `OUTCOMES`."""
        self._request_counters[kind, outcome].inc()

    def on_transition(self, _before: Record, after: Record) -> None:
        """Count a transition; an observer of every controller."""
        self.transitions.labels(after.state.value).inc()
        if after.state is State.READY and not after.adopted:
            self.launch.observe(after.since - after.woken_at)

    def watch_stages(self, backend: str) -> None:
        """Have every stage of a backend's launches, with nothing yet."""
        for stage in STAGE_NAMES:
            self.stage_seconds.labels(backend, stage)

    def observe_stage(self, backend: str, stage: str, seconds: float) -> None:
        """Count a stage of a launch that became ready; one of `STAGE_NAMES`."""
        self.stage_seconds.labels(backend, stage).observe(seconds)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
