"""Share the slots of a node among the pools that it belongs to.

A node whose labels several offers match gets requests of all their pools, and works on
only so many at a time.
"""

from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

from ollama_proxy.base.clock import Clock
from ollama_proxy.fleet.lease import Leases
from ollama_proxy.fleet.node_instance import NodeInstance
from ollama_proxy.fleet.node_load import NodeLoad


class Seat(Protocol):
    """Holds the leases of one pool on a node."""

    def refresh(self) -> None:
        """Take in that another pool has more requests there, or fewer."""


class NodeUse:
    """Counts the requests on one node that take a slot, over all pools."""

    def __init__(self) -> None:
        self.taken = 0
        self._seats: list[Seat] = []

    def join(self, seat: Seat) -> None:
        """Begin to tell a pool of the requests of others."""
        self._seats.append(seat)

    def leave(self, seat: Seat, held: int) -> None:
        """Count the requests of a pool no more."""
        self._seats.remove(seat)
        self.change(seat, -held)

    def change(self, seat: Seat, number: int) -> None:
        """Count more requests of a pool, or fewer, and tell the others."""
        self.taken += number
        for other in self._seats:
            if other is not seat:
                other.refresh()


class NodeUses:
    """Holds the use of every node, as long as a pool has the node."""

    def __init__(self) -> None:
        self._by_node: WeakValueDictionary[str, NodeUse] = WeakValueDictionary()

    def of(self, node_id: str) -> NodeUse:
        """Return the use of a node."""
        use = self._by_node.get(node_id)
        if use is None:
            use = self._by_node[node_id] = NodeUse()
        return use


class NodeLeases(Leases):
    """Holds the leases of one pool on a node."""

    def __init__(
        self,
        node: NodeInstance,
        use: NodeUse,
        clock: Clock,
        *,
        load: NodeLoad,
        freed: Callable[[], None] | None,
        served: Callable[[], None] | None,
    ) -> None:
        super().__init__(node, clock, load=load, freed=freed, served=served)
        self._use = use
        self.node_load = load
        self._counted = 0
        self._is_there = True
        use.join(self)

    @property
    def taken_elsewhere(self) -> int:
        """Return how many slots of the node other pools have taken, of those it has."""
        return min(self._use.taken - self._counted, self._slots or 0)

    def take_facts(self, node: NodeInstance) -> None:
        """Take in what is known of the node now."""
        self._slots = self.node_load.take(node.facts)
        self.refresh()

    def leave(self) -> None:
        """Take no slot of the node any more: the pool has it no longer."""
        self._is_there = False
        self._use.leave(self, self._counted)
        self._counted = 0

    def refresh(self) -> None:
        """Take in that another pool has more requests there, or fewer."""
        had_room = self.has_room
        self._look()
        if self._freed is not None and self.has_room and not had_room:
            self._freed()

    def _count_slots(self) -> None:
        """Work out whether a slot is free, and tell the other pools."""
        if not self._is_there:
            return
        more = len(self._in_slots) - self._counted
        if more:
            self._counted += more
            self._use.change(self, more)
        self._look()

    def _look(self) -> None:
        taken = self._use.taken
        self.node_load.count_others(taken - self._counted)
        self.has_free_slot = self._slots is None or taken < self._slots
