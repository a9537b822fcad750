"""Start and drain the instances of a pool in one place, by the pool's plan.

The owner acts at every event and every second, and carries out `core.pool_plan`. A
launch is on record before its cloud is called.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.lifecycle.deadlines import is_given_up
from ollama_proxy.core.lifecycle.record import AT_REST, Record, State
from ollama_proxy.core.offer_choice import Obstacle
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.pool_facts import PoolFacts
from ollama_proxy.core.pool_plan import Plan, plan
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.launch_ids import LaunchIdSource
from ollama_proxy.fleet.leasing import Leasing
from ollama_proxy.fleet.offer_book import OfferBook
from ollama_proxy.fleet.plan_carrier import PlanCarrier
from ollama_proxy.fleet.pool_slot import PoolSlot
from ollama_proxy.fleet.survey import Survey
from ollama_proxy.fleet.waiters import Waiters
from ollama_proxy.fleet.wakes import ANY_WAKE, AWAKE, was_just_woken

_DOWN_S = 10.0
"""How long the probes of a server of others fail before it counts as down."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Remembers that somebody asked for an instance, until one is ready.

    ``own``: one of ours, since servers of others lack the model.
    """

    model: str | None
    since: float
    own: bool = False


class PoolOwner:
    """Decides how many instances a pool has, and of which offers.

    ``waiters``: the waiting requests; ``leasing``: those in progress. ``accepts``:
    tells whether a start is allowed now.
    """

    def __init__(
        self,
        slots: Sequence[PoolSlot],
        policy: PoolPolicy,
        *,
        book: OfferBook,
        survey: Survey,
        waiters: Waiters,
        leasing: Leasing,
        accepts: Callable[[], bool],
        clock: Clock,
        draw_launch_id: LaunchIdSource,
        timing: Timing,
        tasks: TaskOwner,
    ) -> None:
        self._policy = policy
        self._waiters = waiters
        self._leasing = leasing
        self._accepts = accepts
        self._clock = clock
        self._timing = timing
        self._tasks = tasks
        self._wish: Wish | None = None
        self._is_stopped = False
        self._changed = asyncio.Event()
        self._log = structlog.get_logger()
        own = [slot for slot in slots if not slot.is_external]
        self._own = {slot.name: slot for slot in own}
        self._owned = [one for slot in own for one in slot.controllers]
        self._external = [slot.controllers[0] for slot in slots if slot.is_external]
        if own:  # a launch is bought in place of a server that is down
            for controller in self._external:
                controller.policy = replace(controller.policy, lost_after_s=_DOWN_S)
        self._book = book
        self._carrier = PlanCarrier(self._own, book, clock, draw_launch_id)
        self._survey = survey

    @property
    def would_launch(self) -> bool:
        """Tell whether a wake would begin a launch, now or after the present stop."""
        if self.is_coming or not self._accepts():
            return False
        stops = any(slot.current is not None for slot in self._own.values())
        return self._book.would_start or (stops and not self.is_vain)

    def must_reserve(self, model: str | None) -> bool:
        """Tell whether a wake for a model has to wait until a launch is on disk."""
        if not self._accepts() or self._is_awake_for(model):
            return False
        return self._is_reserving or self._book.would_start

    @property
    def is_coming(self) -> bool:
        """Tell whether an instance of ours is there, on its way, or to follow."""
        asked = self._wish is not None or self._waiters.any_to_wake()
        is_asked = asked and not self._book.outlook().is_vain
        return self._is_awake or self._is_reserving or is_asked or self._is_joining

    @property
    def is_vain(self) -> bool:
        """Tell whether nothing comes any more unless somebody asks again."""
        runs = self._is_awake or self._is_reserving
        return self._book.outlook().is_vain and not runs and not self._is_joining

    @property
    def _is_joining(self) -> bool:
        """Tell whether servers of others are all there is, and one may come yet.

        A node may at any time.
        """
        if self._own:
            return False
        return self._leasing.has_nodes or not all(
            is_given_up(c.record, c.policy) for c in self._external
        )

    @property
    def _is_awake(self) -> bool:
        """Tell whether an instance is ready, or one of ours is starting."""
        return self._is_awake_for(None)

    def _is_awake_for(self, model: str | None) -> bool:
        """Tell the same of a model; of the nodes only those count that have it."""
        return (
            self._is_own_awake
            or any(one.record.state is State.READY for one in self._external)
            or self._leasing.has_ready_node(model)
        )

    @property
    def is_own_coming(self) -> bool:
        """Tell whether an instance of ours is ready, or asked for."""
        return self._wishes_own or self._is_own_awake or self._is_reserving

    @property
    def _is_own_awake(self) -> bool:
        return any(controller.record.state in AWAKE for controller in self._owned)

    @property
    def _is_reserving(self) -> bool:
        return any(controller.is_reserving for controller in self._owned)

    def look(self) -> None:
        """Have the owner look at its pool now."""
        self._changed.set()

    def restore(self) -> None:
        """Take up what an earlier process left, and begin to own it."""
        self._book.before_restore()
        for controller in (*self._owned, *self._external):
            controller.restore()
        self._book.after_restore()
        self._tasks.spawn(self.run(), name="owner of a pool")

    def note(self, controller: Controller, before: Record, after: Record) -> None:
        """Take in a change of state of one instance."""
        is_own = controller in self._owned
        if after.state is State.READY and (is_own or not self._wishes_own):
            self._wish = None
        # Only a person's `Abandoned` leads from a launch straight to rest. Its wish
        # ends too: clients that wait are counted apart, and without any the next launch
        # would cost its idle time for nothing.
        if before.state is State.STARTING and after.state in AT_REST:
            self._wish = None
        if is_own:
            self._book.note(controller, before, after)
        self.look()

    def note_nodes(self) -> None:
        """Take in that nodes of the pool can serve more than before, or less."""
        wish = self._wish
        if wish and not wish.own and self._leasing.has_ready_node(wish.model):
            self._wish = None
        runs = any(slot.current is not None for slot in self._own.values())
        if runs or self._waiters:  # else a plan has nothing to start or to stop
            self.look()

    @property
    def _wishes_own(self) -> bool:
        return self._wish is not None and self._wish.own

    def join(self, model: str | None, *, own: bool = False) -> None:
        """Note for those that start that one more request waits for them."""
        self._is_stopped = False
        now, grain_s = self._clock.now(), self._timing.wake_grain_s
        for controller in self._owned:
            is_starting = controller.record.state is State.STARTING
            if is_starting and not was_just_woken(controller, now, grain_s):
                controller.apply(ANY_WAKE)
        is_served = self.is_own_coming if own else self._is_awake_for(model)
        if not is_served and self._accepts():
            self._wish = self._wish or Wish(model, now, own)
            self.look()

    async def wake(
        self, model: str | None, *, forced: bool = False, own: bool = False
    ) -> None:
        """Remember that an instance is wanted, and begin at once.

        Raises `StoreError` if the launch can't be written to disk; then it does not
        begin.
        """
        if not self._accepts():
            return
        if forced:
            self._book.forgive()
        is_served = self._is_own_awake if own else self._is_awake_for(model)
        self.join(model, own=own)
        if is_served:
            return
        since = self._clock.now() if self._wish is None else self._wish.since
        self._wish = Wish(model, since, own or self._wishes_own)
        for controller in self._owned:
            if controller.is_reserving:
                await controller.wake(ANY_WAKE)  # which waits until that is done
                return
        try:
            await self.carry_out()
        except StoreError:
            self._wish = None  # whose client gets an error
            raise

    def note_service(self) -> None:
        """Take in that a request is being answered."""
        self._book.note_service()

    def obstacles(self) -> Mapping[str, Obstacle]:
        """Return why which offers are not asked at this moment, in their order."""
        return self._book.outlook().obstacles

    def rest(self) -> None:
        """Start nothing until somebody asks again: a person wants no instance."""
        self._wish, self._is_stopped = None, True

    async def run(self) -> None:
        """Look at the pool at every event and every second, until cancelled.

        Any exception in the loop is logged and the loop goes on: without it, nothing
        would be started or drained any more.
        """
        while True:
            self._changed.clear()
            try:
                await self.carry_out()
            except StoreError as error:
                self._log.error(log.STORE_FAILED, error=str(error))
                self._wish = None
                self._waiters.give_up()
            except Exception:
                self._log.exception(log.TASK_CRASHED, task="owner of a pool")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._nap_s()):
                    await self._changed.wait()

    def _nap_s(self) -> float | None:
        """Return when to look again if nothing happens; None: not before it does."""
        rests = all(slot.current is None for slot in self._own.values())
        waits = self._wish is not None or self._waiters.any_to_wake()
        if rests and not waits and not self._policy.min_instances:
            return None
        return self._timing.plan_every_s

    def facts(self) -> PoolFacts:
        """Return what the plan looks at."""
        now, wish = self._clock.now(), self._wish
        policy, waiters = self._policy, self._waiters
        asks_own = self._wishes_own or waiters.any_to_wake_own()
        spill_s = policy.spill_after_s
        waiting = waiters.own_facts(spill_s) if asks_own else waiters.facts()
        if wish is not None:
            oldest_s = max(waiting.oldest_s, now - wish.since)
            waking = max(waiting.waking, 1)
            waiting = replace(waiting, waking=waking, oldest_s=oldest_s)
        if self._is_stopped:
            policy = replace(policy, min_instances=0)
        facts = self._survey.facts(
            policy,
            waiting,
            accepts=self._accepts(),
            drained_at=self._carrier.drained_at,
            nodes=self._leasing.node_facts(self._waited_models()),
        )
        if asks_own:
            ours = tuple(one for one in facts.instances if not one.is_external)
            facts = replace(facts, instances=ours)  # the others don't help
        return facts

    def _waited_models(self) -> Collection[str]:
        """Return the models of the requests that wait, if there are nodes to have them.

        A node that has none of these models is no help.
        """
        if not self._leasing.has_nodes:
            return ()
        models, wish = self._waiters.models(), self._wish
        if wish is not None and wish.model is not None:
            models.add(full_model_name(wish.model))
        return models

    def plan(self) -> Plan:
        """Return what the pool would do now."""
        return plan(self.facts(), self._clock.now())

    async def carry_out(self) -> None:
        """Carry out the plan, and make a new one after each launch is on disk.

        Raises `StoreError` if a launch can't be written.
        """
        while True:
            self._book.keep_limit()
            planned = self.plan()
            self._carrier.keep(planned)
            self._leasing.is_packing = planned.is_packing
            self._carrier.drain(planned)
            model = self._wish.model if self._wish is not None else None
            if not await self._carrier.start_next(planned, model):
                break
        wished = self._wish.model if self._wish is not None else None
        if not self._book.outlook().is_open and not (
            self._is_awake_for(wished) or self._is_reserving
        ):
            self._wish = None  # a client that still wants one asks again, or waits
            if self.is_vain:
                self._waiters.give_up()
