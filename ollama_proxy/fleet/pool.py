"""Lease the instances that serve one set of models under one policy.

Decides which instance serves a request, and wakes and stops instances. Waiting requests
(`Waiters`) share one launch, and are bounded in number, bytes and time.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Unpack

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import HeldBackError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.demand import DemandMeter
from ollama_proxy.core.lifecycle.events import StopRequested
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.core.offer_choice import Obstacle
from ollama_proxy.core.ollama.load_wish import LoadWishes
from ollama_proxy.core.plan_words import explain
from ollama_proxy.core.pool_plan import Plan, plan
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.core.ports import LaunchRegister
from ollama_proxy.core.waiting_order import SOMEBODY, Turn
from ollama_proxy.fleet.admission import Admission
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.house import House, NodeChange
from ollama_proxy.fleet.house_leasing import Change, HouseLeasing
from ollama_proxy.fleet.joiner import Joiner
from ollama_proxy.fleet.launch_ids import LaunchIdSource, random_launch_id
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.leased_instance import LeasedInstance
from ollama_proxy.fleet.leasing import AskedOfModel
from ollama_proxy.fleet.open_leasing import open_leasing
from ollama_proxy.fleet.open_wakes import open_wakes
from ollama_proxy.fleet.pool_slot import PoolSlot
from ollama_proxy.fleet.survey import BootTimes
from ollama_proxy.fleet.sweeper import Sweeper
from ollama_proxy.fleet.waiters import Waiters
from ollama_proxy.fleet.wakes import LEAVING


class Pool:
    """Holds instances by slot, leases on them, and the requests that wait for one.

    ``try_lease``, ``lease``, ``note_refused``, ``request_instance`` and
    ``try_request_instance`` are methods of its `Admission`.
    """

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
        houses: Sequence[House] = (),
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.houses = tuple(houses)
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
        self._tasks = TaskOwner()
        self._waiters = Waiters(
            max_waiting,
            has_room=lambda: self._leasing.has_room,
            tasks=self._tasks,
            timing=timing,
        )
        self._meter = DemandMeter()
        self._load_wishes = load_wishes if load_wishes is not None else LoadWishes()
        self._leasing = open_leasing(
            self.controllers,
            clock,
            meter=self._meter,
            freed=self._grant,
            served=self._note_service,
            houses=self.houses,
            rng=rng,
        )
        self._wakes = open_wakes(
            self.slots,
            self.policy,
            waiters=self._waiters,
            leasing=self._leasing,
            accepts=lambda: self._accepts_wakes,
            meter=self._meter,
            boots=boots,
            clock=clock,
            draw_launch_id=draw_launch_id,
            timing=timing,
            tasks=self._tasks,
        )
        self._admission = Admission(
            leasing=self._leasing,
            waiters=self._waiters,
            wakes=self._wakes,
            joiner=self._joiner,
            meter=self._meter,
            load_wishes=self._load_wishes,
            accepts=lambda: self._accepts_wakes,
            clock=clock,
        )
        self.try_lease = self._admission.try_lease
        self.lease = self._admission.lease
        self.note_refused = self._admission.note_refused
        self.request_instance = self._admission.request_instance
        self.try_request_instance = self._admission.try_request_instance
        for controller in self.controllers:
            controller.subscribe(partial(self._on_transition, controller))
        for house in self.houses:
            house.subscribe(self._on_node)

    @property
    def instances(self) -> Sequence[LeasedInstance]:
        """Return every instance that requests are leased: ours, others', and nodes."""
        nodes = (node for house in self.houses for node in house.nodes)
        return (*self.controllers, *nodes)

    @property
    def nodes(self) -> HouseLeasing | None:
        """Return what knows the nodes; None for a pool that has no house."""
        return self._leasing if isinstance(self._leasing, HouseLeasing) else None

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

    def duplicate(self, lease: Lease) -> Lease | None:
        """Claim the instance of a lease once more; None if it serves no longer."""
        return self._leasing.duplicate(lease)

    def observe(
        self,
        only: LaunchId | None = None,
        *,
        yields: bool = False,
        **asked: Unpack[AskedOfModel],
    ) -> Lease | None:
        """Claim a ready instance for a request that does not reset its idle timer.

        ``only``: that one. ``yields``: nor does it hold off the idle time-out. The
        lease is cut all the same if the instance is lost.
        """
        return self._leasing.observe(only, yields=yields, **asked)

    def observe_all(
        self, *, yields: bool = False, **asked: Unpack[AskedOfModel]
    ) -> list[Lease]:
        """Claim every ready instance, as `observe` does one; nodes with a model."""
        return self._leasing.observe_all(yields=yields, **asked)

    def ready_upstream(self) -> Upstream | None:
        """Return a ready instance that is no node, without a lease on it, if any."""
        return self._leasing.ready_upstream()

    @property
    def is_ready(self) -> bool:
        """Tell whether an instance serves."""
        return self._leasing.ready_count > 0

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

    def spill(
        self,
        spills: Callable[[str, bool], bool],
        helps: Callable[[str], bool] | None = None,
    ) -> None:
        """Have models answered by instances of ours that servers of others lack.

        ``spills`` tells whether they lack one, for a request that is plain or not, and
        an offer of ours is known to have it, or may pull it. ``helps``: whether an
        instance of ours may have a model at all; requests for others wait, and start
        none.
        """
        self._admission.spills, self._admission.helps = spills, helps

    def spills(self, model: str) -> bool:
        """Tell whether only an instance of ours can answer for a model."""
        return self._admission.has_to_be_own(model)

    def may_start_for(self, model: str) -> bool:
        """Tell whether an instance of ours may have a model that is waited for."""
        return self._admission.wakes_for(model)

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
        self._wakes.rest()
        self._admission.stop()
        for controller in self.controllers:
            controller.apply(StopRequested())

    def next_position(self, turn: Turn = SOMEBODY) -> int:
        """Return the place in the queue that a caller's next request would have."""
        return self._waiters.next_position(turn)

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

    def _on_node(self, what: NodeChange) -> None:
        """Take in a node: most beats change nothing that requests wait for."""
        nodes = self.nodes
        assert nodes is not None  # noqa: S101 - a pool with a house has them
        node, before = what.node, what.before
        change = nodes.take(node, before) if what.is_there else nodes.drop(node)
        if change is Change.NONE:
            return
        if change is Change.LESS:
            self._waiters.give_up_overdue()
        elif self._waiters:
            self._waiters.release()
        self._wakes.note_nodes()

    def _grant(self) -> None:
        """Give a slot that has become free to the request whose turn it is."""
        if self._waiters:
            self._waiters.grant()

    def _note_service(self) -> None:
        self._wakes.note_service()
