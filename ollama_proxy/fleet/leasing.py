"""Lease the ready instances of one pool: which one, and to whom."""

import asyncio
import math
from collections.abc import Callable, Sequence

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.demand import DemandMeter
from ollama_proxy.core.instance_choice import choose
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.instance_load import InstanceLoad
from ollama_proxy.fleet.lease import Lease, Leases

_WEIGHED_EVERY_S = 1.0


class Leasing:
    """Holds the leases on every instance of a pool.

    ``freed`` is called whenever a slot becomes free, ``served`` once a request is being
    answered. ``is_limited``: some instances get only so many requests at a time.
    ``is_measured``: there are several, so what they work at is measured.
    ``is_packing``: there are more instances than needed, so the fullest gets the next.
    """

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
        self.is_limited = any(one.offer.slots is not None for one in controllers)
        self.is_packing = False
        self._cursor = 0
        self.is_measured = len(controllers) > 1
        self._leases = {
            one: Leases(
                one,
                clock,
                load=_load_of(one, meter, clock) if self.is_measured else None,
                freed=freed if self.is_limited else None,
                served=served if self.is_measured else None,
            )
            for one in controllers
        }
        self._external = [
            one.load
            for one in self._leases.values()
            if one.load is not None and one.is_external
        ]
        every = self._leases.values()
        self._weighed_at = -math.inf
        self._by_candidate = {id(one.candidate): one for one in every}
        self._ready = [one for one in self._leases.values() if _is_ready(one)]

    @property
    def in_flight(self) -> int:
        """Return how many leases are held now."""
        return sum(controller.record.leases for controller in self._leases)

    @property
    def ready_count(self) -> int:
        """Return how many instances are ready."""
        return len(self._ready)

    def has_any_for(self, only: LaunchId | None, *, own: bool, yields: bool) -> bool:
        """Tell whether a ready instance would do, as `claim` has it; full or not."""
        return bool(_suiting(self._ready, only, own=own, yields=yields))

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
    ) -> Lease | None:
        """Lease the instance that will answer soonest; None if none has a free slot.

        ``only``: the instance of that launch; ``own``: no server of others. A request
        that ``yields`` gets none whose idle time is over. It is counted before anything
        else happens, so no two requests are misled by the same count.
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
        now = self._clock.now()
        if self._external and abs(now - self._weighed_at) >= _WEIGHED_EVERY_S:
            self._weighed_at = now
            for load in self._external:
                load.weigh(now)
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

    def duplicate(self, lease: Lease) -> Lease | None:
        """Lease the instance of a lease once more; None if it serves no longer."""
        for leases in self._ready:
            if lease in leases:
                return leases.claim(takes_slot=False, yields=lease.yields)
        return None

    def observe(
        self, only: LaunchId | None = None, *, yields: bool = False
    ) -> Lease | None:
        """Lease a ready instance to a request that does not reset its idle timer.

        ``only``: the instance of that launch. One that ``yields`` does not hold off the
        idle time-out while it lasts, either.
        """
        for leases in self._ready:
            if (only is None or leases.is_of(only)) and leases.may_observe():
                return leases.claim(counts=False, takes_slot=False, yields=yields)
        return None

    def observe_all(self, *, yields: bool = False) -> list[Lease]:
        """Lease every ready instance, as `observe` does one."""
        claimed = (
            leases.claim(counts=False, takes_slot=False, yields=yields)
            for leases in self._ready
            if leases.may_observe()
        )
        return [lease for lease in claimed if lease is not None]

    def ready_upstream(self) -> Upstream | None:
        """Return a ready instance, without a lease on it; None if none is ready."""
        return self._ready[0].controller.upstream if self._ready else None

    def note(self, controller: Controller, before: Record, after: Record) -> None:
        """Take in a change of state: an instance comes, or is being stopped."""
        leases = self._leases[controller]
        if after.state is State.READY:
            leases.begin_anew(None if after.adopted else after.model)
            self._ready = [one for one in self._leases.values() if _is_ready(one)]
        elif before.state is State.READY:
            self._ready.remove(leases)
            if after.fault is not None:
                leases.note_failure()
        if after.state is State.STOPPING:
            leases.cut()

    async def note_use_forever(self) -> None:
        """Save periodically which instances have a request in progress."""
        beat_s = min(controller.use_grain_s for controller in self._leases)
        while True:
            await asyncio.sleep(beat_s)
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


def _is_ready(leases: Leases) -> bool:
    return leases.controller.record.state is State.READY


def _load_of(controller: Controller, meter: DemandMeter, clock: Clock) -> InstanceLoad:
    return InstanceLoad(
        controller.slot,
        slots=controller.offer.slots,
        is_external=controller.offer.is_external,
        meter=meter,
        clock=clock,
    )
