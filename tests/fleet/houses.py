"""Nodes and houses for tests."""

import random
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.core.nodes.node_state import NodeState
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.backend import Traits
from ollama_proxy.fleet.house import House
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.node_facts import NodeFacts
from ollama_proxy.fleet.node_use import NodeUses
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.upstream.endpoint import Upstream
from tests.fakes.cloud import FakeCloud
from tests.fakes.store import FaultyStore
from tests.virtual_time import LoopClock

HUB = Traits(externally_managed=True, node_labels=Labels())


def a_house(
    name: str = "house", slots: int | None = None, uses: NodeUses | None = None
) -> House:
    """A house without nodes, in the time of the event loop."""
    offer = Offer(name, FakeCloud(traits=HUB), slots=slots)
    return House(offer, labels=Labels(), clock=LoopClock(), uses=uses)


def a_node(
    node_id: str = "attic", models: Collection[str] = ("m",), **facts: Any
) -> NodeFacts:
    """A node that is online and idle, but for what is given."""
    node = NodeFacts(
        node_id=node_id,
        boot_id="b1",
        state=NodeState.ONLINE,
        takes_work=True,
        is_draining=False,
        models={full_model_name(one): {"name": one, "model": one} for one in models},
        loaded=None,
        slots=None,
        foreign=0,
        cpu=0.1,
        has_gpu=False,
        upstream=Upstream(f"http://{node_id}.lan:8001"),
        serves_all=True,
    )
    return replace(node, **facts)


class Neighbourhood:
    """A pool whose only offer is a hub: nodes, and no instance that is ours."""

    def __init__(
        self,
        *nodes: NodeFacts,
        slots: int | None = None,
        uses: NodeUses | None = None,
    ) -> None:
        self.house = a_house(slots=slots, uses=uses)
        self.pool = Pool(
            (),
            store=FaultyStore(),
            clock=LoopClock(),
            max_waiting=1000,
            houses=[self.house],
            rng=random.Random(1),
        )
        self.pool.start()
        for one in nodes:
            self.house.put(one)

    def claim(self, model: str | None = "m", **asked: Any) -> Lease:
        """Lease a node that has to be there."""
        lease = self.pool.try_lease(model=model, **asked)
        assert lease is not None
        return lease

    def node_of(self, model: str | None = "m", **asked: Any) -> str | None:
        """Return the node that a request would get."""
        lease = self.pool.try_lease(model=model, **asked)
        if lease is None:
            return None
        lease.release()
        return lease.node_id


class Reports:
    """What leases reported about nodes."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def failed(self, node_id: str, reason: str) -> None:
        self.said.append((node_id, reason))

    def answered(self, node_id: str) -> None:
        self.said.append((node_id, "answered"))
