"""Keep what is known of the offers of one pool, over all its slots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.core.lifecycle.events import Forgiven, LimitReached, Served
from ollama_proxy.core.lifecycle.launch_limit import (
    WITHOUT_ROOM,
    limit_lockout,
)
from ollama_proxy.core.lifecycle.record import AT_REST, Fault, Record, State
from ollama_proxy.core.offer_choice import (
    NoRoom,
    Obstacle,
    OfferFacts,
    is_limit_reached,
    may_start_more,
    no_room,
    obstacles,
)
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.pool_slot import PoolSlot


@dataclass(frozen=True, slots=True)
class Outlook:
    """Says which offers of a pool may be asked at one moment, in their order.

    ``by_offer``: what is in the way of each, by its name. ``may_start_more``: one more
    launch keeps the limit of those that serve no request.
    """

    by_offer: Mapping[str, Obstacle | None]
    may_start_more: bool

    @property
    def obstacles(self) -> dict[str, Obstacle]:
        """Return why which offers are not asked, in their order."""
        return {name: one for name, one in self.by_offer.items() if one is not None}

    @property
    def is_open(self) -> bool:
        """Tell whether an offer may be asked, on this slot or on another."""
        return None in self.by_offer.values()

    @property
    def is_vain(self) -> bool:
        """Tell whether no offer will be asked any more unless somebody asks again."""
        found = self.by_offer.values()
        return all(one is not None and one.ends_waits for one in found)

    def controller_for(self, slot: PoolSlot) -> Controller | None:
        """Return by what a slot would start now; None if nothing may start there."""
        if not self.may_start_more or slot.current is not None:
            return None
        for controller in slot.controllers:
            is_asked = self.by_offer[controller.offer.name] is None
            if is_asked and controller.record.state in AT_REST:
                return controller
        return None


class OfferBook:
    """Chooses the offer by which a slot starts, and learns from the end of launches.

    ``slots``: those whose instances the pool starts. All have the same offers, in order
    of preference.
    """

    def __init__(self, slots: Sequence[PoolSlot], clock: Clock) -> None:
        self._slots = tuple(slots)
        self._clock = clock
        self._controllers = [one for slot in slots for one in slot.controllers]
        self._by_offer = list(zip(*(slot.controllers for slot in slots), strict=True))
        self._no_room: dict[str, NoRoom] = {}
        if len(self._by_offer) > 1:
            for controller in self._controllers:
                controller.policy = replace(controller.policy, gives_way=True)
        self._last_faults: dict[str, Fault] = {}
        self._unlocked: list[Controller] = []
        self._may_exceed = False
        self._has_unserved = True
        self._log = structlog.get_logger()

    def before_restore(self) -> None:
        """Remember which records no limit locks before new settings unlock others."""
        self._unlocked = [c for c in self._controllers if c.record.lockout is None]

    def after_restore(self) -> None:
        """Lock what a process that died had no time to lock.

        Settings that have changed unlock an offer for one more launch at least.
        """
        if is_limit_reached(self._facts(), self._clock.now()):
            self._lock(self._unlocked)
        self._may_exceed = any(
            one.record.lockout is None
            for one in self._controllers
            if one not in self._unlocked
        )

    def keep_limit(self) -> None:
        """Let nothing more be launched if that is due, but for a person's order."""
        is_due = is_limit_reached(self._facts(), self._clock.now())
        if is_due and not self._may_exceed:
            self._lock(self._controllers)

    def outlook(self) -> Outlook:
        """Return which offers may be asked at this moment."""
        facts, now = self._facts(), self._clock.now()
        reserving = sum(one.is_reserving for one in self._controllers)
        found = zip(facts, obstacles(facts, now), strict=True)
        return Outlook(
            {offer.name: one for offer, one in found},
            may_start_more=may_start_more(facts, reserving, now),
        )

    def controller_for(self, slot: PoolSlot) -> Controller | None:
        """Return by what a slot would start now; None if nothing may start there."""
        return self.outlook().controller_for(slot)

    @property
    def would_start(self) -> bool:
        """Tell whether a launch may begin now, on whichever slot."""
        outlook = self.outlook()
        return any(outlook.controller_for(slot) for slot in self._slots)

    def last_fault(self, offer: str) -> Fault | None:
        """Return why the last launch of an offer failed, in whichever slot."""
        return self._last_faults.get(offer)

    def note(self, controller: Controller, before: Record, after: Record) -> None:
        """Take in a change of state."""
        name = controller.offer.name
        if after.state is State.READY:
            self._no_room.pop(name, None)
            self._last_faults.pop(name, None)
        elif after.state is State.STOPPING and before.state is State.STARTING:
            self._note_failure(name, after)
        if after.state is State.STARTING:
            self._has_unserved = True
        if after.state is State.STOPPING:
            if after.accepted:  # not if its cloud refused it: then the next is asked
                self._may_exceed = False
            self.keep_limit()

    def _note_failure(self, name: str, after: Record) -> None:
        fault = after.fault
        if not after.failed or fault is None:
            return
        self._last_faults[name] = fault
        if fault.reason in WITHOUT_ROOM and len(self._by_offer) > 1:
            before, now = self._no_room.get(name), self._clock.now()
            remembered = self._no_room[name] = no_room(before, fault.message, now)
            self._log.info(
                log.OFFER_PASSED_OVER,
                offer=name,
                reason=fault.reason,
                fault=fault.message,
                for_s=round(remembered.until - now),
            )

    def note_service(self) -> None:
        """Take in that a request was served: launches before it count no more."""
        if self._has_unserved:
            for controller in self._controllers:
                controller.apply(Served())
            self._has_unserved = any(  # what is accepted later counts anew
                one.record.state is State.STARTING for one in self._controllers
            )

    def forgive(self) -> None:
        """Have every offer be tried anew: a person wants that."""
        self._no_room.clear()
        self._last_faults.clear()
        self._may_exceed = True
        for controller in self._controllers:
            controller.apply(Forgiven())

    def _lock(self, controllers: Sequence[Controller]) -> None:
        """Let no request launch anything until somebody acts."""
        limits = [c.policy.launch_limit for c in controllers]
        limit = min((one for one in limits if one is not None), default=None)
        if limit is None:
            return
        now = self._clock.now()
        for controller in controllers:
            lockout = limit_lockout(limit, now, controller.policy)
            controller.apply(LimitReached(lockout))

    def _facts(self) -> list[OfferFacts]:
        return [
            OfferFacts(
                controllers[0].offer.name,
                tuple(one.record for one in controllers),
                controllers[0].policy,
                self._no_room.get(controllers[0].offer.name),
            )
            for controllers in self._by_offer
        ]
