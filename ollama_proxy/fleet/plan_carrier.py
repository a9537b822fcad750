"""Carry out the single steps of a pool's plan: start, drain, keep."""

from collections.abc import Mapping

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.core.lifecycle.events import Surplus, Wake
from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.core.pool_plan import Plan
from ollama_proxy.fleet.launch_ids import LaunchIdSource
from ollama_proxy.fleet.offer_book import OfferBook
from ollama_proxy.fleet.pool_slot import PoolSlot


class PlanCarrier:
    """Starts, drains and keeps the instances of slots by their names.

    ``drained_at``: when an instance was last drained; None if none was.
    """

    def __init__(
        self,
        slots: Mapping[str, PoolSlot],
        book: OfferBook,
        clock: Clock,
        draw_launch_id: LaunchIdSource,
    ) -> None:
        self._slots = slots
        self._book = book
        self._clock = clock
        self._draw_launch_id = draw_launch_id
        self.drained_at: float | None = None
        self._log = structlog.get_logger()

    async def start_next(self, plan: Plan, model: str | None) -> bool:
        """Begin the first launch of a plan, once it is on disk; False if there is none.

        The later ones are those of the next plan. Raises `StoreError`.
        """
        name = next(iter(plan.start), None)
        slot = self._slots[name] if name is not None else None
        controller = self._book.controller_for(slot) if slot is not None else None
        if controller is None:
            return False
        fault = self._book.last_fault(controller.offer.name)
        ready, wanted = plan.reckoning.ready, plan.wanted
        starts = controller.slot
        self._log.info(log.POOL_PLANNED, starts=starts, ready=ready, wanted=wanted)
        await controller.wake(Wake(self._draw_launch_id(), model, fault=fault))
        return controller.record.state is State.STARTING

    def drain(self, plan: Plan) -> None:
        """Stop the instances that are to spare, once their requests have ended."""
        for name in plan.drain:
            controller = self._slots[name].current
            if controller is not None:
                ready, wanted = plan.reckoning.ready, plan.wanted
                drains = controller.slot
                self.drained_at = self._clock.now()
                self._log.info(
                    log.POOL_PLANNED, drains=drains, ready=ready, wanted=wanted
                )
                controller.apply(Surplus())

    def keep(self, plan: Plan) -> None:
        """Exempt some instances from the idle time-out, and no others."""
        for slot in self._slots.values():
            current = slot.current if slot.name in plan.kept else None
            for controller in slot.controllers:
                controller.keep(kept=controller is current)
