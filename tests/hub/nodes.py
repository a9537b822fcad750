"""A registry of nodes for tests: its time is moved by hand."""

from dataclasses import dataclass, field
from typing import Any

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.nodes.beat import Beat, parse_beat
from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.fleet.house import House
from ollama_proxy.fleet.node_facts import NodeFacts
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.hub.beat_rules import RegistryLimits
from ollama_proxy.hub.ports import NodeLink, Sender
from ollama_proxy.hub.registry import NodeRegistry
from ollama_proxy.store.memory import MemoryStore
from ollama_proxy.upstream.endpoint import Upstream
from tests.core.nodes.beats import old_beat, our_beat, sent
from tests.fakes.cloud import FakeCloud
from tests.fleet.houses import HUB
from tests.virtual_time import SetClock

PEER = Sender("192.168.1.20")


@dataclass
class Links:
    """Reaches every node at the address of its beat, as it is with former agents."""

    serves_all: bool = False
    fault: str = ""
    asked: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def link_of(self, beat: Beat, sender: Sender) -> NodeLink:
        self.asked.append(beat.node_id)
        if self.fault:
            return NodeLink(fault=self.fault)
        upstream = Upstream(f"http://{sender.peer}:{beat.port}")
        return NodeLink(upstream, self.serves_all)

    def forget(self, node_id: str) -> None:
        self.forgotten.append(node_id)


class Hub:
    """A registry with its surroundings. ``keyed``: names of nodes that have joined.

    ``time``: what tells it the time instead of ``clock``, which is moved by hand.
    """

    def __init__(
        self,
        *,
        store: MemoryStore | None = None,
        clock: SetClock | None = None,
        time: Clock | None = None,
        houses: dict[str, Labels] | None = None,
        limits: RegistryLimits | None = None,
    ) -> None:
        self.clock, self.store = clock or SetClock(), store or MemoryStore()
        self.keyed: set[str] = set()
        self.links = Links()
        self.houses = {
            name: House(
                Offer(name, FakeCloud(traits=HUB)),
                labels=labels,
                clock=time or self.clock,
            )
            for name, labels in (houses or {"house": Labels()}).items()
        }
        self.registry = NodeRegistry(
            time or self.clock,
            self.store,
            [*self.houses.values()],
            self.links,
            limits=limits,
            is_keyed=self.keyed.__contains__,
        )

    def restarted(self) -> "Hub":
        """Return a hub that goes on with what this one wrote."""
        hub = Hub(store=self.store, clock=self.clock)
        hub.registry.restore()
        return hub

    def hear(self, beat: dict[str, Any], sender: Sender = PEER) -> dict[str, Any]:
        """Take in a beat as its body is sent."""
        read = parse_beat(sent(beat), self.registry.last_beat)
        return self.registry.beat(read, sender)

    def old(self, node_id: str = "box", **changed: Any) -> dict[str, Any]:
        """Take in a beat of a former agent."""
        return self.hear(old_beat(node_id, **changed))

    def ours(
        self, node_id: str = "box", seq: int = 1, **changed: Any
    ) -> dict[str, Any]:
        """Take in a beat of our agent."""
        return self.hear(our_beat(node_id, seq, **changed))

    def wait(self, seconds: float) -> None:
        """Let time pass, in ticks."""
        for _ in range(int(seconds)):
            self.clock.moment += 1.0
            self.registry.tick()

    def facts(self, node_id: str = "box", house: str = "house") -> NodeFacts | None:
        """Return what a house knows of a node; None if it has none."""
        nodes = {node.node_id: node.facts for node in self.houses[house].nodes}
        return nodes.get(node_id)

    def status(self, node_id: str = "box") -> str:
        """Return the state that is shown of a node; "" if it is not there."""
        shown = self.registry.shown(node_id)
        return "" if shown is None else str(shown["status"])
