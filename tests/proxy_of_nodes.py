"""A whole proxy before faulty nodes, on real sockets."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.core.nodes.node_state import NodeState
from ollama_proxy.fleet.backend import Backend, Traits
from ollama_proxy.fleet.house import House
from ollama_proxy.upstream.endpoint import Upstream
from tests.fakes.cloud import FakeCloud
from tests.fakes.faulty_nodes import Fault, FaultyNode, Received, faulty_node
from tests.fleet.houses import Reports, a_node
from tests.ports import held_port
from tests.proxy import RunningProxy, running_proxy

OF_NODES = Traits(externally_managed=True, node_labels=Labels())
SETTINGS = """
models = ["tiny"]
[offers.nodes]
backend = "static"
upstream_url = "http://127.0.0.1:8"
[offers.server]
backend = "static"
upstream_url = "http://127.0.0.1:9"
[pools.main]
models = ["*"]
offers = ["nodes", "server"]
"""
"""Nodes, and a server that is not there."""


@dataclass
class Household:
    """A proxy, its nodes in the order in which they are chosen, and what it reports."""

    proxy: RunningProxy
    nodes: list[FaultyNode]
    house: House
    reports: Reports
    serves_all: bool = True
    places: Sequence[int] = ()
    has_loaded: bool = True
    slots: int = 8

    def join(self, node: FaultyNode, state: NodeState = NodeState.ONLINE) -> None:
        """Have the house know a node, as idle as its place says."""
        facts = a_node(
            node.name, ["tiny"], slots=self.slots, upstream=self._upstream(node)
        )
        foreign = 3 * self.places[self.nodes.index(node)]
        facts = replace(facts, serves_all=self.serves_all, foreign=foreign)
        takes_work = state is NodeState.ONLINE
        facts = replace(facts, state=state, takes_work=takes_work)
        loaded = frozenset(facts.models if self.has_loaded else ())
        self.house.put(replace(facts, loaded=loaded))

    def _upstream(self, node: FaultyNode) -> Upstream:
        return Upstream(node.url, is_gateway=not self.serves_all)

    def leave(self, node: FaultyNode) -> None:
        """Have the node go offline."""
        self.join(node, NodeState.OFFLINE)

    @property
    def received(self) -> list[Received]:
        """What all nodes got."""
        return [request for one in self.nodes for request in one.received]

    @property
    def in_flight(self) -> dict[str, int]:
        """How many requests of ours each node has."""
        leases = {str(one.node_id): one.record.leases for one in self.house.nodes}
        return {name: number for name, number in leases.items() if number}

    @property
    def asked(self) -> list[str]:
        """The names of the nodes that got the request, in the order of choice."""
        return [one.name for one in self.nodes for _ in one.received]

    def failures(self) -> list[str]:
        """The nodes that were reported, in that order."""
        return [name for name, said in self.reports.said if said != "answered"]

    def answers(self) -> list[str]:
        return [name for name, said in self.reports.said if said == "answered"]


@contextlib.asynccontextmanager
async def household(
    folder: Path,
    *faults: Fault,
    serves_all: bool = True,
    places: Sequence[int] = range(8),
    has_loaded: bool = True,
    slots: int = 8,
    timeout_s: int = 60,
    server: Backend | None = None,
    **more: Any,
) -> AsyncIterator[Household]:
    """Run a proxy whose nodes a, b, c … have these faults.

    ``places``: the order in which they are chosen. ``has_loaded``: the model is in
    their memory. ``timeout_s``: to the first byte. ``server``: what there is besides
    the nodes; without it, a server of others that is away.
    """
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(faulty_node(name, fault))
            for name, fault in zip("abcdefgh", faults, strict=False)
        ]
        file = folder / "config.toml"
        file.write_text(SETTINGS)
        server = server or StaticBackend(f"http://127.0.0.1:{held_port()}")
        running = running_proxy(
            folder,
            backends={"nodes": FakeCloud(traits=OF_NODES), "server": server},
            file=file,
            NODE_REQUEST_TIMEOUT=str(timeout_s),
            **more,
        )
        proxy = await stack.enter_async_context(running)
        (house,) = proxy.parts.pool.houses
        house.reports = reports = Reports()
        found = Household(
            proxy, nodes, house, reports, serves_all, list(places), has_loaded, slots
        )
        for node in nodes:
            found.join(node)
        yield found
