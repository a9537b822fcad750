"""Describe a pool at this moment, for its plan."""

from collections.abc import Sequence
from typing import Protocol

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.demand import DemandMeter, boot_prior_s
from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.core.pool_facts import (
    Demand,
    InstanceFacts,
    Phase,
    PoolFacts,
    Waiting,
)
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.offer_book import OfferBook, Outlook
from ollama_proxy.fleet.pool_slot import PoolSlot

_PHASES = {
    State.STARTING: Phase.STARTING,
    State.READY: Phase.READY,
    State.DRAINING: Phase.DRAINING,
    State.STOPPING: Phase.LEAVING,
}


class BootTimes(Protocol):
    """Knows how long the launches of an offer took."""

    def slow_s(self, offer: str) -> float | None:
        """Return what most launches stayed within; None before the first."""


def usual_boot_s(offer: Offer, boots: BootTimes | None) -> float:
    """Return how long an instance of an offer takes to be ready."""
    measured_s = None if boots is None else boots.slow_s(offer.name)
    if measured_s is not None:
        return measured_s
    is_child = offer.backend.traits.child_process
    return boot_prior_s(is_external=offer.is_external, is_child=is_child)


class Survey:
    """Tells the facts of a pool: its slots, what arrives, what may be started."""

    def __init__(
        self,
        slots: Sequence[PoolSlot],
        *,
        book: OfferBook,
        meter: DemandMeter,
        boots: BootTimes | None,
        clock: Clock,
    ) -> None:
        self._slots = tuple(slots)
        self._own = [slot for slot in self._slots if not slot.is_external]
        self._book = book
        self._meter = meter
        self._boots = boots
        self._clock = clock

    def facts(
        self,
        policy: PoolPolicy,
        waiting: Waiting,
        *,
        accepts: bool,
        drained_at: float | None = None,
        nodes: Sequence[InstanceFacts] = (),
    ) -> PoolFacts:
        """Return what a plan looks at.

        ``accepts``: the proxy may start something at all. ``drained_at``: when a plan
        last drained an instance. ``nodes``: those that register themselves.
        """
        now, outlook = self._clock.now(), self._book.outlook()
        return PoolFacts(
            policy,
            (*nodes, *(self._instance(one, outlook, now) for one in self._slots)),
            waiting,
            self._demand(outlook, now),
            _obstacle(outlook) if accepts else "the proxy starts nothing now",
            drained_at,
        )

    def _instance(self, slot: PoolSlot, outlook: Outlook, now: float) -> InstanceFacts:
        controller = slot.current
        if controller is None:
            may_start = (
                not slot.is_external and outlook.controller_for(slot) is not None
            )
            return InstanceFacts(
                slot.name,
                Phase.AT_REST,
                is_external=slot.is_external,
                may_start=may_start,
            )
        record, offer = controller.record, controller.offer
        starts = controller.is_reserving or record.state is State.STARTING
        passed_s = now - record.woken_at if record.state is State.STARTING else 0.0
        return InstanceFacts(
            slot.name,
            Phase.STARTING if starts else _PHASES[record.state],
            slots=offer.slots or 0,
            in_flight=record.keeping,
            eta_s=max(0.0, usual_boot_s(offer, self._boots) - passed_s),
            idle_since=record.last_used,
            is_external=slot.is_external,
            started_at=record.launched_at,
        )

    def _demand(self, outlook: Outlook, now: float) -> Demand:
        """Return what arrives, and what an instance of the next offer brings."""
        offer = self._next_offer(outlook)
        if offer is None:
            return Demand(
                load=self._meter.load(now, 0.0),
                service_s=self._meter.service_s,
                is_service_measured=self._meter.is_service_measured,
            )
        boot_s = usual_boot_s(offer, self._boots)
        return Demand(
            load=self._meter.load(now, boot_s),
            service_s=self._meter.service_s,
            boot_s=boot_s,
            slots=offer.slots or 0,
            is_service_measured=self._meter.is_service_measured,
            is_boot_measured=self._measured_boot_s(offer) is not None,
        )

    def _next_offer(self, outlook: Outlook) -> Offer | None:
        for slot in self._own:
            if (controller := outlook.controller_for(slot)) is not None:
                return controller.offer
        return self._own[0].controllers[0].offer if self._own else None

    def _measured_boot_s(self, offer: Offer) -> float | None:
        return None if self._boots is None else self._boots.slow_s(offer.name)


def _obstacle(outlook: Outlook) -> str:
    """Return why no offer may be asked, in words; empty if one may be."""
    if outlook.is_open:
        return ""
    found = outlook.obstacles.items()
    return "; ".join(f"{name}: {one.message}" for name, one in found)
