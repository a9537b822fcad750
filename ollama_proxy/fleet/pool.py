"""Lease the instances that serve one set of models under one policy.

Decides which instance serves a request, and wakes and stops instances. Waiting requests
(`Waiters`) share one launch, and are bounded in number, bytes and time.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import HeldBackError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.demand import DemandMeter
from ollama_proxy.core.lifecycle.events import StopRequested
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.core.offer_choice import Obstacle
from ollama_proxy.core.ollama.load_wish import LoadWish, LoadWishes
from ollama_proxy.core.plan_words import explain
from ollama_proxy.core.pool_plan import Plan, plan
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.core.ports import LaunchRegister
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.joiner import Joiner
from ollama_proxy.fleet.launch_ids import LaunchIdSource, random_launch_id
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.leasing import Leasing
from ollama_proxy.fleet.offer_book import OfferBook
from ollama_proxy.fleet.pool_owner import PoolOwner
from ollama_proxy.fleet.pool_slot import PoolSlot
from ollama_proxy.fleet.survey import BootTimes, Survey
from ollama_proxy.fleet.sweeper import Sweeper
from ollama_proxy.fleet.waiters import Ticket, Waiters, Wants
from ollama_proxy.fleet.wakes import LEAVING, LoneWakes, Wakes


class Pool:
    """Holds instances by slot, leases on them, and the requests that wait for one."""

    def __init__(
        self,
        slots: Sequence[PoolSlot],
        *,
        name: str = "default",
        store: LaunchRegister,
        clock: Clock,
        max_waiting: int,
        policy: PoolPolicy | None = None,
        boots: BootTimes | None = None,
        draw_launch_id: LaunchIdSource = random_launch_id,
        load_wishes: LoadWishes | None = None,
        timing: Timing = STANDARD,
    ) -> None:
        self.name = name
        self.slots = tuple(slots)
        self.policy = policy or PoolPolicy(max_instances=len(self.slots))
        self.controllers = tuple(one for slot in slots for one in slot.controllers)
        backends = [c.offer.backend for c in self.controllers]
        self.sweeper = Sweeper(backends, store=store, clock=clock, timing=timing)
        self._joiner = Joiner(
            self.controllers, clock=clock, draw_launch_id=draw_launch_id, timing=timing
        )
        self._ends = False
        self._is_held_back = False
        self._clock = clock
        self._timing = timing
        self._draw_launch_id = draw_launch_id
        self._tasks = TaskOwner()
        self._waiters = Waiters(
            max_waiting,
            has_room=lambda: self._leasing.has_room,
            tasks=self._tasks,
            timing=timing,
        )
        self._meter = DemandMeter()
        self._load_wishes = load_wishes if load_wishes is not None else LoadWishes()
        self._stops = 0
        self._leasing = Leasing(
            self.controllers,
            clock,
            meter=self._meter,
            freed=self._grant,
            served=self._note_service,
        )
        self._wakes = self._open_wakes(boots)
        for controller in self.controllers:
            controller.subscribe(partial(self._on_transition, controller))

    def _open_wakes(self, boots: BootTimes | None) -> Wakes:
        """Return what begins launches: a simple one where there is one instance."""

        def accepts() -> bool:
            return self._accepts_wakes

        if len(self.controllers) == 1 and not self.policy.min_instances:
            book = OfferBook([s for s in self.slots if not s.is_external], self._clock)
            return LoneWakes(
                self.controllers[0],
                survey=Survey(
                    self.slots,
                    book=book,
                    meter=self._meter,
                    boots=boots,
                    clock=self._clock,
                ),
                waiters=self._waiters,
                accepts=accepts,
                clock=self._clock,
                draw_launch_id=self._draw_launch_id,
                timing=self._timing,
                tasks=self._tasks,
            )
        return PoolOwner(
            self.slots,
            self.policy,
            waiters=self._waiters,
            leasing=self._leasing,
            accepts=accepts,
            meter=self._meter,
            boots=boots,
            clock=self._clock,
            draw_launch_id=self._draw_launch_id,
            timing=self._timing,
            tasks=self._tasks,
        )

    @property
    def waiting(self) -> int:
        """Return how many requests wait now."""
        return len(self._waiters)

    @property
    def in_flight(self) -> int:
        """Return how many leases are held now."""
        return self._leasing.in_flight

    def start(self) -> None:
        """Begin to own the instances: adopt those on record, sweep the others."""
        self._wakes.restore()
        for controller in self.controllers:
            self._tasks.spawn(controller.run(), name=f"owner of {controller.slot}")
        for controller in self._joiner.joined:
            self._tasks.spawn(self._joiner.run(controller), name="join")
        self._tasks.spawn(self.sweeper.run(), name="sweep")
        self._tasks.spawn(self._leasing.note_use_forever(), name="use")

    def stop_admitting(self) -> None:
        """Wake nothing more, and end every wait: the proxy ends."""
        self._ends = True
        self._waiters.give_up()

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Wake and sweep nothing meanwhile: what instances are made of changes."""
        self._is_held_back = self.sweeper.is_held_back = True
        try:
            yield
        finally:
            self._is_held_back = self.sweeper.is_held_back = False

    @property
    def _accepts_wakes(self) -> bool:
        return not (self._ends or self._is_held_back)

    async def stop_on_exit(self, *, everything: bool, limit_s: float) -> None:
        """Stop instances when the proxy ends: child processes, or all, in bounded time.

        Instances that still exist then are on record, so the next proxy stops them.
        """
        for controller in self.controllers:
            if everything or controller.offer.backend.traits.child_process:
                controller.apply(StopRequested())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while any(  # noqa: ASYNC110
                    c.is_reserving or c.record.state in LEAVING
                    for c in self.controllers
                ):
                    await asyncio.sleep(self._timing.exit_poll_s)

    async def aclose(self) -> None:
        """Let go of the instances; they stay as they are."""
        self.stop_admitting()
        await self._tasks.aclose()

    @property
    def ready_count(self) -> int:
        """Return how many instances are ready."""
        return self._leasing.ready_count

    def has_ready(self, launch_id: LaunchId) -> bool:
        """Tell whether the instance of a launch is ready."""
        return self._leasing.has_ready(launch_id)

    def try_lease(
        self,
        only: LaunchId | None = None,
        *,
        model: str | None = None,
        takes_slot: bool = True,
    ) -> Lease | None:
        """Claim the ready instance that will answer soonest, if there is one.

        ``only``: that one. A request that ``takes_slot`` has to wait if all slots are
        taken, or if others wait for one.
        """
        if takes_slot and self._waiters and self._leasing.is_limited:
            return None
        return self._leasing.claim(only, model=model, takes_slot=takes_slot)

    def duplicate(self, lease: Lease) -> Lease | None:
        """Claim the instance of a lease once more; None if it serves no longer."""
        return self._leasing.duplicate(lease)

    def observe(self, only: LaunchId | None = None) -> Lease | None:
        """Claim a ready instance for a request that does not reset its idle timer.

        ``only``: that one. The lease is cut all the same if the instance is lost.
        """
        return self._leasing.observe(only)

    def observe_all(self) -> list[Lease]:
        """Claim every ready instance, as `observe` does one."""
        return self._leasing.observe_all()

    def ready_upstream(self) -> Upstream | None:
        """Return a ready instance, without a lease on it; None if none is ready."""
        return self._leasing.ready_upstream()

    @property
    def is_ready(self) -> bool:
        """Tell whether an instance serves."""
        return self.ready_upstream() is not None

    @property
    def would_launch(self) -> bool:
        """Tell whether a wake would begin a launch, now or after the present stop.

        False if a launch is under way, will follow by itself, or if wakes are refused.
        """
        return self._wakes.would_launch

    def obstacles(self) -> Mapping[str, Obstacle]:
        """Return why which offers are not asked at this moment, in their order.

        A lone offer tells that by its record.
        """
        return self._wakes.obstacles()

    def plan(self) -> tuple[Plan, Sequence[str]]:
        """Return what the pool would do now, and the reasons in sentences."""
        facts, now = self._wakes.facts(), self._clock.now()
        planned = plan(facts, now)
        return planned, explain(facts, planned, now)

    def check_now(self) -> None:
        """Look at the instances now: one could not be reached."""
        for controller in self.controllers:
            controller.check_now()

    async def wake(self, model: str | None = None, *, forced: bool = False) -> None:
        """Launch an instance, or join the launch under way.

        When this returns, the launch is on disk. Raises `StoreError` if it can't be
        written; then nothing is launched. Raises `HeldBackError` for a ``forced`` wake
        while wakes are held back.
        """
        if self._is_held_back and forced:
            raise HeldBackError("the proxy deploys or deletes; wake afterwards")
        await self._wakes.wake(model, forced=forced)

    def stop(self) -> None:
        """Stop every instance once its streams have ended.

        Waiting requests get their 503 at once.
        """
        self._stops += 1
        self._wakes.rest()
        self._load_wishes.clear()
        self._waiters.give_up()
        for controller in self.controllers:
            controller.apply(StopRequested())

    async def lease(
        self,
        model: str | None,
        *,
        wait_s: float,
        load: LoadWish | None = None,
        joins: bool = False,
        only: LaunchId | None = None,
        takes_slot: bool = True,
        ticket: Ticket | None = None,
    ) -> Lease | None:
        """Claim a ready instance; wake and wait for one if there is none.

        A request that ``joins`` waits for a launch of others, and wakes nothing. With
        ``only`` the instance of that launch will do for it. One that ``takes_slot``
        waits for a free slot of a ready instance as long as its client does; ``ticket``
        tells its place then.

        Returns None if there is no instance after ``wait_s`` seconds, or as soon as it
        is certain that there will be none. Raises `HoldLimitError` if too many requests
        wait already, `StoreError` if the wake could not be written to disk.
        """
        claim = partial(self.try_lease, only, model=model, takes_slot=takes_slot)
        if (lease := claim()) is not None:
            return lease
        if takes_slot and only is None:
            self._meter.deferred(None, self._clock.now())
        if not self._has_ready(only):
            wait_s = await self.request_instance(
                model, wait_s=wait_s, load=load, joins=joins
            )
            if (lease := claim()) is not None:
                return lease
            if wait_s <= 0 and not self._has_ready(only):
                return None
        self._wakes.look()
        claim = partial(self._leasing.claim, only, model=model, takes_slot=takes_slot)
        # More instances would not help one that only one instance can serve.
        wakes = not joins and only is None
        wants = Wants.TO_WAKE if wakes else Wants.TO_JOIN
        is_ready = partial(self._has_ready, only)
        return await self._waiters.wait(
            claim, wait_s, wants, is_ready=is_ready, ticket=ticket
        )

    def _has_ready(self, only: LaunchId | None) -> bool:
        return self.is_ready if only is None else self.has_ready(only)

    @property
    def next_position(self) -> int:
        """Return the place in the queue that the next request would have."""
        return len(self._waiters) + 1

    async def request_instance(
        self,
        model: str | None,
        *,
        wait_s: float,
        load: LoadWish | None = None,
        joins: bool = False,
    ) -> float:
        """Wake an instance for a request that needs ``load``, as `lease` does.

        Returns for how many seconds the request should wait: 0 if it is certain that
        there will be no instance. Raises `StoreError` if the wake could not be written
        to disk.
        """
        left_s = self.try_request_instance(model, wait_s=wait_s, load=load, joins=joins)
        if left_s is not None:
            return left_s
        stops = self._stops
        self._note_wanted(load)
        await self.wake(model)
        if self._stops != stops:  # as the waiting requests are
            return 0.0
        return self._longest_wait_s(wait_s, joins=False)

    def try_request_instance(
        self,
        model: str | None,
        *,
        wait_s: float,
        load: LoadWish | None = None,
        joins: bool = False,
    ) -> float | None:
        """Do the same as `request_instance`, without awaiting anything.

        Returns None, and has done nothing, if a launch must be written to disk first.
        """
        if not joins:
            if self._wakes.must_reserve:
                return None
            self._note_wanted(load)
            self._wakes.join(model)
        return self._longest_wait_s(wait_s, joins=joins)

    def _longest_wait_s(self, wait_s: float, *, joins: bool) -> float:
        """Return how long a request waits that may wait for ``wait_s`` seconds."""
        is_in_vain = self._wakes.is_vain or not self._accepts_wakes
        is_in_vain = is_in_vain or (joins and not self._wakes.is_coming)
        return 0.0 if is_in_vain else max(wait_s, self._joiner.grace_left_s(), 0.0)

    def _note_wanted(self, load: LoadWish | None) -> None:
        if load is not None:
            self._load_wishes.add(load)

    def _on_transition(
        self, controller: Controller, before: Record, after: Record
    ) -> None:
        self._leasing.note(controller, before, after)
        if after.state is State.READY:
            self._load_wishes.clear()
            self._waiters.release()
        elif before.state is State.READY:
            self._waiters.give_up_overdue()
        self._wakes.note(controller, before, after)

    def _grant(self) -> None:
        """Give a slot that has become free to the request that waits longest."""
        if self._waiters:
            self._waiters.grant()

    def _note_service(self) -> None:
        self._wakes.note_service()
