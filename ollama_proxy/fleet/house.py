"""Hold the nodes of one offer: machines that register themselves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.lifecycle.record import LaunchId, Record
from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.fleet.node_facts import NodeFacts, NodeReports
from ollama_proxy.fleet.node_instance import NodeInstance
from ollama_proxy.fleet.node_use import NodeUses
from ollama_proxy.fleet.offer import Offer


@dataclass(frozen=True, slots=True)
class NodeChange:
    """Reports that a node joined, changed or left.

    ``before``: its record before; None if it joined. ``is_there``: it has not left.
    """

    node: NodeInstance
    before: Record | None = None
    is_there: bool = True


Watcher = Callable[[NodeChange], None]
"""Called after each change of a node; it must not wait."""


class House:
    """Holds the nodes of one offer in one pool, as the hub knows them.

    ``labels``: which nodes belong to it. ``uses``: shared by the houses
    of all pools. ``reports``: takes in how requests ended.
    """

    def __init__(
        self,
        offer: Offer,
        *,
        labels: Labels,
        clock: Clock,
        uses: NodeUses | None = None,
    ) -> None:
        self.offer = offer
        self.labels = labels
        self.reports: NodeReports | None = None
        self.uses = uses or NodeUses()
        self._clock = clock
        self._nodes: dict[str, NodeInstance] = {}
        self._numbers = count(1)
        self._watchers: list[Watcher] = []

    @property
    def nodes(self) -> Sequence[NodeInstance]:
        """Return every node that is registered, whatever its state."""
        return tuple(self._nodes.values())

    def subscribe(self, watcher: Watcher) -> None:
        """Have ``watcher`` called after each change of a node."""
        self._watchers.append(watcher)

    def own_in_flight(self, node_id: str) -> int:
        """Return how many requests of this pool a node has."""
        node = self._nodes.get(node_id)
        return 0 if node is None else node.record.leases

    def put(self, facts: NodeFacts) -> None:
        """Take in what is known of a node; one that is new joins."""
        node = self._nodes.get(facts.node_id)
        if node is None:
            node = NodeInstance(
                facts,
                self.offer,
                self._launch_id(facts),
                self._clock,
                lambda: self.reports,
            )
            self._nodes[facts.node_id] = node
            self._tell(NodeChange(node))
            return
        before = node.record
        if facts.boot_id != node.facts.boot_id:
            node.begin_anew(self._launch_id(facts))
        node.take(facts)
        self._tell(NodeChange(node, before))

    def remove(self, node_id: str) -> None:
        """Forget a node; its requests are cut."""
        node = self._nodes.pop(node_id, None)
        if node is not None:
            self._tell(NodeChange(node, node.record, is_there=False))

    def _launch_id(self, facts: NodeFacts) -> LaunchId:
        """Return a name for one process of a node, or one time that it was there."""
        return LaunchId(f"{facts.node_id}#{next(self._numbers)}")

    def _tell(self, change: NodeChange) -> None:
        for watcher in self._watchers:
            watcher(change)
