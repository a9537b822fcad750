"""Lease the instances of a pool that has nodes, which differ in models and in speed.

Nodes come and go, and each has models of its own. They are found by model, so that what
a request costs does not grow with their number.
"""

import random
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from functools import partial
from typing import Unpack

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.demand import DemandMeter
from ollama_proxy.core.instance_choice import Candidate
from ollama_proxy.core.lifecycle.record import LaunchId, Record
from ollama_proxy.core.node_choice import choose_of_many, is_preferred, take_turn
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.pool_facts import InstanceFacts, Phase
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.instance_load import InstanceLoad
from ollama_proxy.fleet.lease import Lease, Leases
from ollama_proxy.fleet.leased_instance import LeasedInstance
from ollama_proxy.fleet.leasing import Asked, AskedOfModel, Leasing, is_ready
from ollama_proxy.fleet.node_index import NodeIndex
from ollama_proxy.fleet.node_instance import NodeInstance
from ollama_proxy.fleet.node_load import NodeLoad, PacedLoad
from ollama_proxy.fleet.node_use import NodeLeases, NodeUses
from ollama_proxy.upstream.endpoint import Upstream

Lacks = Callable[[LeasedInstance, str], bool]
"""Tells whether an instance of ours, or a server of others, is known to lack a model,
by its full name, that another one is known to have."""


class Change(Enum):
    """Says whether a node can serve more than before, or less, as far as matters."""

    NONE = "none"
    MORE = "more"
    LESS = "less"


class HouseLeasing(Leasing):
    """Holds the leases on every instance of a pool that has nodes.

    ``lacks``: see `Lacks`; None as long as nothing is known. ``houses``: the offers of
    the nodes. ``uses``: what other pools have these work at.
    """

    has_nodes = True
    lacks: Lacks | None = None

    def __init__(
        self,
        controllers: Sequence[Controller],
        clock: Clock,
        *,
        meter: DemandMeter,
        freed: Callable[[], None],
        served: Callable[[], None],
        rng: random.Random,
        houses: Sequence[str],
        uses: NodeUses,
    ) -> None:
        super().__init__(controllers, clock, meter=meter, freed=freed, served=served)
        self._draw = rng.random
        self._houses = tuple(houses)
        self._uses = uses
        self._turn = 0.0
        self._nodes: dict[NodeInstance, NodeLeases] = {}
        self._index = NodeIndex()
        self._own = [self._leases[one] for one in controllers]

    def _load_of(self, instance: LeasedInstance) -> InstanceLoad:
        return PacedLoad(instance, meter=self._meter, clock=self._clock)

    def has_ready_node(self, model: str | None) -> bool:
        """Tell whether a node may get requests for a model; None: for any."""
        if model is None:
            return bool(self._index.ready)
        return self._index.is_ready(full_model_name(model))

    def is_known(self, full_name: str, *, plain: bool = True) -> bool:
        """Tell whether a node has a model, in whatever state it is.

        If not ``plain``, those don't count that are known to generate text only.
        """
        return self._index.is_known(full_name, plain=plain)

    def take(self, node: NodeInstance, before: Record | None) -> Change:
        """Take in a node that joined, or that changed in some way."""
        leases = self._nodes.get(node)
        if leases is None:
            leases = self._leases[node] = self._nodes[node] = self._open_node(node)
            self._by_candidate[id(leases.candidate)] = leases
            self._external.append(leases.node_load)
        elif before is not None and before.launch_id != node.record.launch_id:
            leases.cut()
            leases.begin_anew(None)
        had_room = leases.has_room
        leases.take_facts(node)
        if not self._index.note(node, leases):
            has_more = leases.has_room and not had_room
            return Change.MORE if has_more else Change.NONE
        self._list(leases)
        return Change.MORE if is_ready(leases) else Change.LESS

    def _list(self, leases: NodeLeases) -> None:
        """Have a node among those that may get requests, or not."""
        if leases in self._ready:
            self._ready.remove(leases)
        if is_ready(leases):
            self._ready.append(leases)

    def drop(self, node: NodeInstance) -> Change:
        """Forget a node that is registered no more, and cut its requests."""
        leases = self._nodes.pop(node, None)
        if leases is not None:
            self._index.forget(node, leases.candidate)
            if leases in self._ready:
                self._ready.remove(leases)
            del self._leases[node], self._by_candidate[id(leases.candidate)]
            self._external.remove(leases.node_load)
            leases.leave()
            leases.cut()
        return Change.LESS

    def _open_node(self, node: NodeInstance) -> NodeLeases:
        return NodeLeases(
            node,
            self._uses.of(node.facts.node_id),
            self._clock,
            load=NodeLoad(node, meter=self._meter, clock=self._clock),
            freed=self._freed,
            served=self._served,
        )

    def claim(
        self,
        only: LaunchId | None = None,
        *,
        model: str | None = None,
        takes_slot: bool = True,
        own: bool = False,
        yields: bool = False,
        **asked: Unpack[Asked],
    ) -> Lease | None:
        """Lease the instance that will answer soonest; None if none has a free slot.

        As `Leasing.claim`; of the nodes only those that have the ``model``.
        """
        leases = self._find(
            only, takes_slot=takes_slot, own=own, yields=yields, model=model, **asked
        )
        if leases is None:
            return None
        return leases.claim(takes_slot=takes_slot, model=model, yields=yields)

    def _find(
        self,
        only: LaunchId | None,
        *,
        takes_slot: bool,
        own: bool,
        yields: bool,
        model: str | None = None,
        without: Collection[LaunchId] = (),
        without_nodes: bool = False,
        plain: bool = False,
        brings: bool = False,
        source: str = "",
    ) -> Leases | None:
        """Return the instance that will answer soonest; None if none suits."""
        by_candidate = self._by_candidate

        def suits(one: Candidate) -> bool:
            leases = by_candidate[id(one)]
            if takes_slot and not leases.has_free_slot:
                return False
            instance = leases.instance
            launch_id = instance.record.launch_id
            if only is not None and launch_id != only:
                return False
            if not plain and not instance.serves_all:
                return False
            if without and launch_id in without:
                return False
            if without_nodes and instance.node_id is not None:
                return False
            return not yields or leases.may_observe()

        name = None if model is None else full_model_name(model)
        if source and self._index.is_ready(full_model_name(source)):
            name = full_model_name(source)
        elif brings and name is not None and not self._index.is_ready(name):
            name = None
        choose = partial(
            choose_of_many,
            model=name,
            now=self._weigh(),
            suits=suits,
            draw=self._draw,
            is_packing=self.is_packing,
        )
        theirs, ours = self._candidates(only, name, own=own)
        best = choose(theirs)
        if ours and (best is None or not is_preferred(best)):
            best = choose([*theirs, *ours])
        if best is None:
            return None
        if takes_slot:
            self._turn = take_turn(best, name, self._turn)
        return by_candidate[id(best)]

    def _candidates(
        self, only: LaunchId | None, name: str | None, *, own: bool
    ) -> tuple[Sequence[Candidate], Sequence[Candidate]]:
        """Return what may have a model: of others, ready nodes first; and of ours."""
        if only is not None:
            return [one.candidate for one in self._ready], ()
        ready = [one for one in self._own if is_ready(one)]
        if name is not None and self.lacks is not None:
            ready = [one for one in ready if not self.lacks(one.instance, name)]
        ours = [one.candidate for one in ready if not one.is_external]
        if own:
            return (), ours
        nodes = self._index.ready if name is None else self._index.holders(name)
        if len(ours) == len(ready):
            return nodes, ours
        boxes = (one.candidate for one in ready if one.is_external)
        return [*nodes, *boxes], ours

    def has_any_for(
        self,
        only: LaunchId | None,
        *,
        own: bool,
        yields: bool,
        **asked: Unpack[AskedOfModel],
    ) -> bool:
        """Tell whether a ready instance would do, as `claim` has it; full or not."""
        return (
            self._find(only, takes_slot=False, own=own, yields=yields, **asked)
            is not None
        )

    def observe(
        self,
        only: LaunchId | None = None,
        *,
        yields: bool = False,
        **asked: Unpack[AskedOfModel],
    ) -> Lease | None:
        """Lease a ready instance to a request that does not reset its idle timer.

        As `Leasing.observe`; of the nodes only those that have the ``model``.
        """
        # The idle time of an instance of ours may be over: it gets no such requests.
        leases = self._find(only, takes_slot=False, own=False, yields=True, **asked)
        if leases is None:
            return None
        return leases.claim(counts=False, takes_slot=False, yields=yields)

    def observe_all(
        self, *, yields: bool = False, **asked: Unpack[AskedOfModel]
    ) -> list[Lease]:
        """Lease every ready instance that is no node, and the nodes with a model."""
        model = asked.get("model")
        holders = () if model is None else self._index.holders(full_model_name(model))
        found = [
            *(one for one in self._own if is_ready(one)),
            *(self._by_candidate[id(one)] for one in holders),
        ]
        claimed = (
            leases.claim(counts=False, takes_slot=False, yields=yields)
            for leases in found
            if leases.may_observe() and leases.instance.serves_all
        )
        return [lease for lease in claimed if lease is not None]

    def slots_of(self, node: NodeInstance) -> int:
        """Return how many requests a node gets at a time."""
        return self._leases[node].candidate.slots

    def ready_upstream(self) -> Upstream | None:
        """Return a ready instance that is no node, without a lease on it, if any."""
        found = (one.instance.upstream for one in self._own if is_ready(one))
        return next(found, None)

    def node_facts(self, models: Collection[str]) -> Sequence[InstanceFacts]:
        """Return what the plan of the pool sees of its nodes: a server for each offer.

        It is there even before any node is: one may come in a moment, as a server that
        is down may. ``models``: what requests wait for, by full names; nodes without
        any of these are no help. Each node counts if there are none.
        """
        told = {
            name: InstanceFacts(name, Phase.AT_REST, is_external=True, may_start=False)
            for name in self._houses
        }
        for node, leases in self._nodes.items():
            name, before = node.offer.name, told[node.offer.name]
            helps = not models or self._index.has_any(node, models)
            if helps and is_ready(leases):
                told[name] = InstanceFacts(
                    name,
                    Phase.READY,
                    slots=before.slots + leases.candidate.slots,
                    in_flight=before.in_flight + node.record.keeping,
                    elsewhere=before.elsewhere + leases.taken_elsewhere,
                    idle_since=max(before.idle_since, node.record.last_used),
                    is_external=True,
                )
        return tuple(told.values())
