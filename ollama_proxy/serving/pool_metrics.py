"""Define the metrics of pools and offers; both are those of the settings."""

from collections.abc import Callable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from ollama_proxy.core.lifecycle.record import Record, State
from ollama_proxy.core.nodes.node_state import NodeState
from ollama_proxy.fleet.house import House
from ollama_proxy.fleet.node_instance import NodeInstance
from ollama_proxy.serving.offer_status import OFFER_STATES

POOL_GAUGES = {
    "requests_in_flight": "Leases held now, by pool",
    "requests_waiting": "Requests that wait for an instance or a slot now, by pool",
    "instances_ready": "Instances that can serve now, by pool",
    "instances_wanted": "Instances of ours that the plan of a pool wants now",
}
DRAINING = "draining"
NODE_STATES = (*(state.value for state in NodeState), DRAINING)
LAUNCH_OUTCOMES = ("ready", "failed")


class PoolMetrics:
    """Counts launches by pool and offer, and tells what goes on in each pool."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.launches = Counter(
            "ollama_proxy_launches",
            "Launches by their pool, their offer and how they ended",
            ("pool", "offer", "outcome"),
            registry=registry,
        )
        self._of_offers = Gauge(
            "ollama_proxy_offer_state",
            "1 for the state that an offer is in: open, passed_over, off",
            ("pool", "offer", "state"),
            registry=registry,
        )
        self._nodes = Gauge(
            "ollama_proxy_nodes",
            "Nodes by pool, offer and state: online, offline, degraded or draining",
            ("pool", "offer", "state"),
            registry=registry,
        )
        self._of_pools = {
            name: Gauge(f"ollama_proxy_pool_{name}", text, ("pool",), registry=registry)
            for name, text in POOL_GAUGES.items()
        }

    def watch_pool(self, pool: str, gauges: Mapping[str, Callable[[], float]]) -> None:
        """Have the gauges of `POOL_GAUGES` read from a pool when metrics are asked."""
        for name, function in gauges.items():
            self._of_pools[name].labels(pool).set_function(function)

    def watch_offer(self, pool: str, offer: str, is_in: Callable[[str], bool]) -> None:
        """Have a gauge for each state of an offer: 1 for the one that it is in."""
        for state in OFFER_STATES:
            gauge = self._of_offers.labels(pool, offer, state)
            gauge.set_function(partial(_one_if, is_in, state))
        for outcome in LAUNCH_OUTCOMES:
            self.launches.labels(pool, offer, outcome)

    def watch_house(self, pool: str, house: House) -> None:
        """Have gauges count the nodes of a house when metrics are asked for.

        By state and never by node: their number has no bound here.
        """
        for state in NODE_STATES:
            gauge = self._nodes.labels(pool, house.offer.name, state)
            gauge.set_function(partial(_count_in, house, state))

    def on_launch(self, pool: str, offer: str, before: Record, after: Record) -> None:
        """Count how a launch ended: ready, or failed before it was."""
        if before.state is not State.STARTING or after.state is State.STARTING:
            return
        if after.state is State.READY:
            self.launches.labels(pool, offer, "ready").inc()
        elif after.failed:
            self.launches.labels(pool, offer, "failed").inc()


def _count_in(house: House, state: str) -> float:
    return float(sum(_state_of(node) == state for node in house.nodes))


def _state_of(node: NodeInstance) -> str:
    """Return the state of a node; one that is online and drains counts as draining."""
    facts = node.facts
    is_online = facts.state is NodeState.ONLINE
    return DRAINING if is_online and facts.is_draining else facts.state.value


def _one_if(is_in: Callable[[str], bool], state: str) -> float:
    return float(is_in(state))
