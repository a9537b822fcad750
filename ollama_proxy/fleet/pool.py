"""Lease the instances that serve one set of models under one policy.

Decides which instance serves a request, and wakes and stops instances. Waiting requests
(`Waiters`) share one launch, and are bounded in number, bytes and time.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import HeldBackError, StoreError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.lifecycle.deadlines import is_given_up
from ollama_proxy.core.lifecycle.events import StopRequested, Wake
from ollama_proxy.core.lifecycle.record import AT_REST, LaunchId, Record, State
from ollama_proxy.core.ollama.load_wish import LoadWish, LoadWishes
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.core.ports import LaunchRegister
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.joiner import Joiner
from ollama_proxy.fleet.launch_ids import LaunchIdSource, random_launch_id
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.leasing import Leasing
from ollama_proxy.fleet.pool_slot import PoolSlot
from ollama_proxy.fleet.sweeper import Sweeper
from ollama_proxy.fleet.waiters import Waiters, Wants

_AWAKE = {State.STARTING, State.READY}
_LEAVING = {State.DRAINING, State.STOPPING}
_ANY_WAKE = Wake(LaunchId("any"))  # where none begins, or to ask whether one would


class Pool:
    """Holds instances by slot, leases on them, and the requests that wait for one."""

    def __init__(
        self,
        slots: Sequence[PoolSlot],
        *,
        store: LaunchRegister,
        clock: Clock,
        max_waiting: int,
        policy: PoolPolicy | None = None,
        draw_launch_id: LaunchIdSource = random_launch_id,
        load_wishes: LoadWishes | None = None,
        timing: Timing = STANDARD,
    ) -> None:
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
            is_ready=lambda: self.is_ready,
            tasks=self._tasks,
            timing=timing,
        )
        self._wanted_model: str | None = None
        self._load_wishes = load_wishes if load_wishes is not None else LoadWishes()
        self._wakes_again = False
        self._stops = 0
        self._log = structlog.get_logger()
        self._leasing = Leasing(self.controllers, clock)
        for controller in self.controllers:
            controller.subscribe(partial(self._on_transition, controller))

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
        for controller in self.controllers:
            controller.restore()
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
                    c.is_reserving or c.record.state in _LEAVING
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

    def try_lease(self, only: LaunchId | None = None) -> Lease | None:
        """Claim the least busy ready instance, if there is one; ``only``: that one."""
        return self._leasing.claim(only)

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
        states = {c.record.state for c in self.controllers}
        if states & _AWAKE or self._is_coming() or not self._accepts_wakes:
            return False
        if states & _LEAVING:
            return not self._in_vain()
        return self.controllers[0].would_launch(_ANY_WAKE)

    def _must_reserve(self) -> bool:
        """Tell whether a wake has to wait until a launch is written down."""
        states = {c.record.state for c in self.controllers}
        if states & _AWAKE or not self._accepts_wakes:
            return False
        first = self.controllers[0]
        return self._is_reserving() or first.would_launch(_ANY_WAKE)

    def _is_reserving(self) -> bool:
        """Tell whether a launch is being written down, which begins then."""
        return any(controller.is_reserving for controller in self.controllers)

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
        for controller in self._to_wake(forced=forced):
            await controller.wake(Wake(self._draw_launch_id(), model, forced))

    def _join(self) -> None:
        """Ask for an instance where no launch begins: one is under way, or to come."""
        for controller in self._to_wake():
            if controller.record.state not in AT_REST:
                controller.apply(_ANY_WAKE)

    def _to_wake(self, *, forced: bool = False) -> list[Controller]:
        """Return which slots a wake goes to now."""
        if not self._accepts_wakes:
            return []
        woken = [c for c in self.controllers if c.record.state in _AWAKE]
        if any(c.record.state in _LEAVING for c in self.controllers):
            self._wakes_again = True
        return [
            controller
            for controller in woken or self.controllers[:1]
            if forced or not self._was_just_woken(controller)
        ]

    def _was_just_woken(self, controller: Controller) -> bool:
        """Tell whether one more wake, of thousands a second, changes nothing."""
        record = controller.record
        passed_s = self._clock.now() - record.last_used
        is_recent = 0 <= passed_s < self._timing.wake_grain_s
        return record.state is State.STARTING and is_recent

    def stop(self) -> None:
        """Stop every instance once its streams have ended.

        Waiting requests get their 503 at once.
        """
        self._stops += 1
        self._wakes_again = False
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
    ) -> Lease | None:
        """Claim a ready instance; wake and wait for one if there is none.

        A request that ``joins`` waits for a launch of others, and wakes nothing.

        ``only`` the instance of that launch will do for it.

        Returns None if there is no instance after ``wait_s`` seconds, or as soon as it
        is certain that there will be none. Raises `HoldLimitError` if too many requests
        wait already, `StoreError` if the wake could not be written to disk.
        """
        if (lease := self.try_lease(only)) is not None:
            return lease
        wait_s = await self.request_instance(
            model, wait_s=wait_s, load=load, joins=joins
        )
        wants = Wants.TO_JOIN if joins else Wants.TO_WAKE
        return await self._wait(wait_s, wants, only) if wait_s > 0 else None

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
        self._note_wanted(model, load)
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
            if self._must_reserve():
                return None
            self._note_wanted(model, load)
            self._join()
        return self._longest_wait_s(wait_s, joins=joins)

    def _longest_wait_s(self, wait_s: float, *, joins: bool) -> float:
        """Return how long a request waits that may wait for ``wait_s`` seconds."""
        is_in_vain = self._in_vain() or not self._accepts_wakes
        is_in_vain = is_in_vain or (joins and not self._is_coming())
        return 0.0 if is_in_vain else max(wait_s, self._joiner.grace_left_s(), 0.0)

    def _note_wanted(self, model: str | None, load: LoadWish | None) -> None:
        self._wanted_model = model
        if load is not None:
            self._load_wishes.add(load)

    def _is_coming(self) -> bool:
        """Tell whether a launch is under way, or comes by itself after a stop."""
        starting = any(c.record.state is State.STARTING for c in self.controllers)
        starting = starting or self._is_reserving()
        return starting or self._wakes_again or self._waiters.any_to_wake()

    async def _wait(
        self, wait_s: float, wants: Wants, only: LaunchId | None
    ) -> Lease | None:
        """Wait for a lease; another request may be quicker, then it waits on."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while await self._waiters.wait_until(deadline, wants):
            if (lease := self.try_lease(only)) is not None:
                return lease
            if not self._accepts_wakes:
                return None
        return None

    def _on_transition(
        self, controller: Controller, _before: Record, after: Record
    ) -> None:
        match after.state:
            case State.STOPPING:
                self._leasing.cut(controller)
                if self._in_vain():
                    self._waiters.give_up()
            case State.READY:
                self._load_wishes.clear()
                self._waiters.release()
            case State.STARTING:
                self._wakes_again = False  # this is that launch
            case State.COLD if self._waiters.any_to_wake() or self._wakes_again:
                self._tasks.spawn(self._wake_for_waiting(), name="wake again")
            case State.COLD:
                self._waiters.give_up()
            case State.COOLDOWN if self._in_vain() or not self._is_coming():
                self._wakes_again = False  # else it launches unasked
                self._waiters.give_up()

    def _in_vain(self) -> bool:
        """Tell whether no launch is under way or to come by itself."""
        return all(is_given_up(c.record, c.policy) for c in self.controllers)

    async def _wake_for_waiting(self) -> None:
        """Wake again, now that it is cold, for requests made while it stopped."""
        if not self._waiters.any_to_wake() and not self._wakes_again:
            return
        self._wakes_again = False
        try:
            await self.wake(self._wanted_model)
        except StoreError as error:
            self._log.error(log.STORE_FAILED, error=str(error))
            self._waiters.give_up()
