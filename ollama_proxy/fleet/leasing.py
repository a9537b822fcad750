"""Lease the ready instances of one pool: which one, and to whom."""

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from typing import TypedDict, Unpack

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.demand import DemandMeter
from ollama_proxy.core.instance_choice import choose
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.pool_facts import InstanceFacts
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.instance_load import InstanceLoad
from ollama_proxy.fleet.lease import Lease, Leases
from ollama_proxy.fleet.leased_instance import LeasedInstance

_WEIGHED_EVERY_S = 1.0


class Asked(TypedDict, total=False):
    """Holds what a request asks of nodes, which differ in what they can do.

    ``without``: it was sent to these launches already. ``plain``: a node will do that
    generates text only. ``brings``: it adds its model, so a node without will do if
    none has it. ``source``: the model that it is made from, "" if there is none.
    ``without_nodes``: no node will do any more.
    """

    without: Collection[LaunchId]
    without_nodes: bool
    plain: bool
    brings: bool
    source: str


class AskedOfModel(Asked, total=False):
    """Holds the same, and the ``model`` that a node needs to have."""

    model: str | None


class Leasing:
    """Holds the leases on every instance of a pool without nodes.

    ``freed`` is called whenever a slot becomes free, ``served`` once a request is being
    answered. ``is_limited``: some instances get only so many requests at a time.
    ``is_measured``: there are several, so what they work at is measured.
    ``is_packing``: there are more instances than needed, so the fullest gets the next.
    """

    has_nodes = False

    def __init__(
        self,
        controllers: Sequence[Controller],
        clock: Clock,
        *,
        meter: DemandMeter,
        freed: Callable[[], None],
        served: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._meter = meter
        is_limited = any(one.offer.slots is not None for one in controllers)
        self.is_limited = is_limited or self.has_nodes
        self.is_packing = False
        self._cursor = 0
        self.is_measured = len(controllers) > 1 or self.has_nodes
        self._freed = freed if self.is_limited else None
        self._served = served if self.is_measured else None
        self._use_grain_s = min(
            (one.use_grain_s for one in controllers), default=math.inf
        )
        self._leases: dict[LeasedInstance, Leases] = {
            one: self._open(one, self._load_of(one) if self.is_measured else None)
            for one in controllers
        }
        self._external = [
            one.load
            for one in self._leases.values()
            if one.load is not None and one.is_external
        ]
        self._weighed_at = -math.inf
        self._by_candidate = {id(one.candidate): one for one in self._leases.values()}
        self._ready = [one for one in self._leases.values() if is_ready(one)]

    def _open(self, instance: LeasedInstance, load: InstanceLoad | None) -> Leases:
        """Return what holds the leases on one instance."""
        return Leases(
            instance, self._clock, load=load, freed=self._freed, served=self._served
        )

    def _load_of(self, instance: LeasedInstance) -> InstanceLoad:
        """Return what measures an instance of several."""
        return InstanceLoad(
            instance.slot,
            slots=instance.offer.slots,
            is_external=instance.offer.is_external,
            meter=self._meter,
            clock=self._clock,
        )

    @property
    def in_flight(self) -> int:
        """Return how many leases are held now."""
        return sum(instance.record.leases for instance in self._leases)

    @property
    def ready_count(self) -> int:
        """Return how many instances are ready."""
        return len(self._ready)

    def has_any_for(
        self,
        only: LaunchId | None,
        *,
        own: bool,
        yields: bool,
        **_asked: Unpack[AskedOfModel],
    ) -> bool:
        """Tell whether a ready instance would do, as `claim` has it; full or not."""
        return bool(_suiting(self._ready, only, own=own, yields=yields))

    def has_ready_node(self, _model: str | None) -> bool:
        """Tell whether a node may get requests for a model; None: for any."""
        return False

    def node_facts(self, _models: Collection[str]) -> Sequence[InstanceFacts]:
        """Return what the plan of the pool sees of its nodes that have a model."""
        return ()

    def has_ready(self, launch_id: LaunchId) -> bool:
        """Tell whether the instance of a launch is ready."""
        return any(leases.is_of(launch_id) for leases in self._ready)

    @property
    def has_room(self) -> bool:
        """Tell whether a ready instance has a free slot."""
        return any(leases.has_room for leases in self._ready)

    def claim(
        self,
        only: LaunchId | None = None,
        *,
        model: str | None = None,
        takes_slot: bool = True,
        own: bool = False,
        yields: bool = False,
        **_asked: Unpack[Asked],
    ) -> Lease | None:
        """Lease the instance that will answer soonest; None if none has a free slot.

        ``only``: the instance of that launch; ``own``: no server of others. A request
        that ``yields`` gets none whose idle time is over. It is counted before anything
        else happens, so no two requests are misled by the same count.

        What else is ``asked`` matters where there are nodes.
        """
        ready = self._ready
        if takes_slot and self.is_limited:
            ready = [leases for leases in ready if leases.has_free_slot]
        ready = _suiting(ready, only, own=own, yields=yields)
        if not ready:
            return None
        chosen = ready[0] if len(ready) == 1 else self._choose(ready, model)
        return chosen.claim(takes_slot=takes_slot, model=model, yields=yields)

    def _choose(self, ready: Sequence[Leases], model: str | None) -> Leases:
        self._cursor += 1
        now = self._weigh()
        candidates = [one.candidate for one in ready]
        best = choose(
            candidates,
            None if model is None else full_model_name(model),
            now,
            is_packing=self.is_packing,
            has_external=bool(self._external),
            cursor=self._cursor,
        )
        return self._by_candidate[id(best)]

    def _weigh(self) -> float:
        """Prefer again those servers of others that were good for long; return now."""
        now = self._clock.now()
        if self._external and abs(now - self._weighed_at) >= _WEIGHED_EVERY_S:
            self._weighed_at = now
            for load in self._external:
                load.weigh(now)
        return now

    def duplicate(self, lease: Lease) -> Lease | None:
        """Lease the instance of a lease once more; None if it serves no longer."""
        for leases in self._ready:
            if lease in leases:
                return leases.claim(takes_slot=False, yields=lease.yields)
        return None

    def observe(
        self,
        only: LaunchId | None = None,
        *,
        yields: bool = False,
        **_asked: Unpack[AskedOfModel],
    ) -> Lease | None:
        """Lease a ready instance to a request that does not reset its idle timer.

        ``only``: the instance of that launch. One that ``yields`` does not hold off the
        idle time-out while it lasts, either. The rest is as `claim` has it.
        """
        for leases in self._ready:
            if (only is None or leases.is_of(only)) and leases.may_observe():
                return leases.claim(counts=False, takes_slot=False, yields=yields)
        return None

    def observe_all(
        self, *, yields: bool = False, **_asked: Unpack[AskedOfModel]
    ) -> list[Lease]:
        """Lease every ready instance, as `observe` does one.

        Of the nodes those that have a ``model``, if one is given.
        """
        claimed = (
            leases.claim(counts=False, takes_slot=False, yields=yields)
            for leases in self._ready
            if leases.may_observe()
        )
        return [lease for lease in claimed if lease is not None]

    def ready_upstream(self) -> Upstream | None:
        """Return a ready instance, without a lease on it; None if none is ready."""
        return self._ready[0].instance.upstream if self._ready else None

    def note(self, controller: Controller, before: Record, after: Record) -> None:
        """Take in a change of state: an instance comes, or is being stopped."""
        leases = self._leases[controller]
        if after.state is State.READY:
            leases.begin_anew(None if after.adopted else after.model)
            self._ready = [one for one in self._leases.values() if is_ready(one)]
        elif before.state is State.READY:
            self._ready.remove(leases)
            if after.fault is not None:
                leases.note_failure()
        if after.state is State.STOPPING:
            leases.cut()

    async def note_use_forever(self) -> None:
        """Save periodically which instances have a request in progress."""
        if math.isinf(self._use_grain_s):  # there are nodes only
            return
        while True:
            await asyncio.sleep(self._use_grain_s)
            for leases in list(self._ready):
                leases.note_use()


def _suiting(
    ready: list[Leases], only: LaunchId | None, *, own: bool, yields: bool
) -> list[Leases]:
    """Return those that would do for a request, as `Leasing.claim` has it."""
    if only is not None:
        ready = [leases for leases in ready if leases.is_of(only)]
    if own:
        ready = [leases for leases in ready if not leases.is_external]
    if yields:
        ready = [leases for leases in ready if leases.may_observe()]
    return ready


def is_ready(leases: Leases) -> bool:
    """Tell whether an instance may get requests."""
    return leases.instance.record.state is State.READY
