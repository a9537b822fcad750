"""Measure what an instance beside nodes works at; take in what a node tells of itself.

Machines that register themselves differ in speed, so each has a pace of its own.
"""

from collections.abc import Hashable
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.demand import DemandMeter
from ollama_proxy.core.node_choice import is_hot
from ollama_proxy.core.nodes.node_state import NodeState
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.pace import Pace
from ollama_proxy.fleet.instance_load import InstanceLoad
from ollama_proxy.fleet.leased_instance import LeasedInstance
from ollama_proxy.fleet.node_facts import NodeFacts

_LEAST_LOAD_S: Final = 300.0
_LOADS_OF_PATIENCE: Final = 2.0


class PacedLoad(InstanceLoad):
    """Measures the pace of one instance of a pool that has nodes."""

    def __init__(
        self, instance: LeasedInstance, *, meter: DemandMeter, clock: Clock
    ) -> None:
        offer = instance.offer
        super().__init__(
            instance.slot,
            slots=offer.slots,
            is_external=offer.is_external,
            meter=meter,
            clock=clock,
        )
        self._pace = Pace()
        self.candidate.pace_s = self._pace.by_model

    def begin(self, request: Hashable, model: str | None) -> None:
        """Take in that the instance gets a request."""
        super().begin(request, model)
        measured_s = self._pace.service_s
        if measured_s is not None:
            self.candidate.service_s = measured_s

    def end(self, request: Hashable, *, used: bool) -> None:
        """Take in that a request has ended; ``used``: it was answered."""
        work = self._work.get(request)
        if used and work is not None:
            self._pace.served(work.model, self._clock.now() - work.began_at)
        super().end(request, used=used)


class NodeLoad(PacedLoad):
    """Measures a node, and takes in what its beats tell."""

    def __init__(
        self, instance: LeasedInstance, *, meter: DemandMeter, clock: Clock
    ) -> None:
        super().__init__(instance, meter=meter, clock=clock)
        self._offered_slots = instance.offer.slots
        self._tells_loaded = False
        self._foreign = self._others = 0

    def take(self, facts: NodeFacts) -> int:
        """Take in what is known of the node; return how many requests it may have.

        A degraded node gets one request, which decides whether it is well again.
        """
        one = self.candidate
        self._foreign = facts.foreign
        self.count_others(self._others)
        busy = one.in_flight + one.foreign
        one.is_hot = is_hot(cpu=facts.cpu, has_gpu=facts.has_gpu, busy=busy)
        slots = facts.slots or self._offered_slots or 1
        one.slots = 1 if facts.state is NodeState.DEGRADED else slots
        self._take_loaded(facts.loaded)
        return one.slots

    def count_others(self, number: int) -> None:
        """Take in how many requests the node has of other pools."""
        self._others = number
        self.candidate.foreign = self._foreign + number

    def load_limit_s(self, model: str | None) -> float:
        """Return how much longer an answer may take whose model has to be loaded.

        Twice what a load took there, 5 minutes at least. What is in memory is not known
        of former agents, so there each model may have to be loaded.
        """
        loaded = self.candidate.loaded
        if model is None:
            return 0.0
        if loaded is not None and full_model_name(model) in loaded:
            return 0.0
        return max(_LEAST_LOAD_S, _LOADS_OF_PATIENCE * self.candidate.load_s)

    def _take_loaded(self, loaded: frozenset[str] | None) -> None:
        """Go by what the node says is in memory, and by what it answers with now."""
        self._tells_loaded = loaded is not None
        if loaded is None:
            return
        answering = {one.model for one in self._work.values() if not one.loads}
        names = loaded.union(name for name in answering if name is not None)
        self._loaded.clear()
        self._loaded.update(dict.fromkeys(names, self._clock.now()))
        self.candidate.loaded = self._loaded

    def _remember(self, model: str, now: float) -> None:
        """Remember that a model is in memory, until the next beat tells what is."""
        if not self._tells_loaded:
            super()._remember(model, now)
        else:
            self._loaded[model] = now
