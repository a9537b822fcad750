"""The instances that serve one set of models under one policy.

Hands out leases on a ready instance; without one, wakes it and lets requests
wait, joined to the one launch, within bounds of count, bytes and age. Who
waits is remembered only as long as the client is there.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Protocol

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    ConflictError,
    HoldLimitError,
    StoreError,
)
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.core.lifecycle.deadlines import is_given_up
from ollama_proxy.core.lifecycle.events import (
    LeaseGranted,
    Released,
    StopRequested,
    Used,
    Wake,
)
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.core.lifecycle.transitions import step
from ollama_proxy.core.ollama.load_wish import LoadWish, LoadWishes
from ollama_proxy.core.ports import LaunchRegister
from ollama_proxy.fleet.backend import (
    Backend,
    Belonging,
    SupportsIdleCosts,
    SupportsOwners,
    SupportsRelease,
    SupportsTidy,
    Upstream,
)
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.owners import twin_words, twins

_WAKE_GRAIN_S = 1.0
_RAMP_FIRST = 8
_RAMP_PAUSE_S = 0.01
_JOIN_GRACE_S = 2.0
_JOIN_PAUSE_S = 0.5
_STOP_POLL_S = 0.02
_SWEEP_EVERY_S = 600.0
_SWEEP_CALL_S = 120.0


class Lease:
    """One request's claim on a ready instance, until it is released.

    The instance does not go for idleness meanwhile. ``counts``: what comes of it may
    be use. ``is_used``: it was, so its end will be. ``was_cut``: the instance was lost
    meanwhile.
    """

    def __init__(
        self,
        controller: Controller,
        upstream: Upstream,
        launch_id: LaunchId,
        forget: Callable[["Lease"], None],
        *,
        counts: bool = True,
    ) -> None:
        self._controller = controller
        self._forget = forget
        self.counts = counts
        self._held = True
        self.is_used = False
        self.was_cut = False
        self.launch_id = launch_id
        self._scope: asyncio.Timeout | None = None
        self.upstream = upstream
        self.touch = controller.touch
        self.check_now = controller.check_now

    def until_cut(self, limit_s: float | None = None) -> asyncio.Timeout:
        """Return a scope that ends in `TimeoutError` if the instance is lost.

        Or, until `lift_limit` is called, if ``limit_s`` passes.
        """
        self._scope = asyncio.timeout(0.0 if self.was_cut else limit_s)
        return self._scope

    def lift_limit(self) -> None:
        """Let the request take what time it takes from now on."""
        if self._scope is not None and not self.was_cut:
            self._scope.reschedule(None)

    def cut(self) -> None:
        """End the request: the instance will not answer it any more."""
        self.was_cut = True
        if self._scope is not None:
            with contextlib.suppress(RuntimeError):  # the scope was left already
                self._scope.reschedule(asyncio.get_running_loop().time())

    def mark_used(self) -> None:
        """Take note that the instance works on it: so does it until it is released."""
        if self.counts and not self.is_used:
            self.is_used = True
            self._controller.note_use(self.launch_id)

    def mark_moving(self) -> None:
        """Take note that the instance worked on it just now."""
        if self.counts:
            self._controller.apply(Used(self.launch_id))

    def release(self) -> None:
        """Give the claim back; a second time changes nothing."""
        if self._held:
            self._held = False
            self._forget(self)
            self._controller.apply(Released(self.launch_id, self.is_used))

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class _Wants(Enum):
    """What one who waits may do: have an instance woken, or wait for that of others."""

    TO_WAKE = "wake"
    TO_JOIN = "join"


class LaunchIdSource(Protocol):
    """Draws launch ids."""

    def __call__(self) -> LaunchId:
        """Return an id that was never used."""


def random_launch_id() -> LaunchId:
    """Return an id that was never used: 64 random bits, fit for any cloud's tags."""
    return LaunchId(f"l{secrets.token_hex(8)}")


class Pool:
    """Instances by slot, leases on them, and the requests that wait for one."""

    def __init__(
        self,
        controllers: Sequence[Controller],
        *,
        store: LaunchRegister,
        clock: Clock,
        max_waiting: int,
        draw_launch_id: LaunchIdSource = random_launch_id,
        load_wishes: LoadWishes | None = None,
    ) -> None:
        self.controllers = tuple(controllers)
        self._ends = False
        self._is_held_back = False
        self._store = store
        self._clock = clock
        self._max_waiting = max_waiting
        self._draw_launch_id = draw_launch_id
        self._waiters: dict[asyncio.Future[bool], _Wants] = {}
        self._wanted_model: str | None = None
        self._load_wishes = load_wishes if load_wishes is not None else LoadWishes()
        self._wakes_again = False
        self._tasks = TaskOwner()
        self._releasing = False
        self._log = structlog.get_logger()
        self._leases: dict[Controller, set[Lease]] = {}
        for controller in self.controllers:
            self._leases[controller] = set()
            controller.subscribe(partial(self._on_transition, controller))

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return len(self._waiters)

    @property
    def in_flight(self) -> int:
        """How many leases are held now."""
        return sum(controller.record.leases for controller in self.controllers)

    def start(self) -> None:
        """Begin to own the instances: adopt what runs, sweep what nobody knows."""
        for controller in self.controllers:
            controller.restore()
            self._tasks.spawn(controller.run(), name=f"owner of {controller.slot}")
            if controller.offer.backend.traits.externally_managed:
                self._tasks.spawn(self._keep_joined(controller), name="join")
        self._tasks.spawn(self._sweep_forever(), name="sweep")
        self._tasks.spawn(self._note_use_forever(), name="use")

    def stop_admitting(self) -> None:
        """Wake nothing more, and let nobody wait any longer: the proxy ends."""
        self._ends = True
        self._give_up()

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Wake and sweep nothing meanwhile: what instances are made of changes."""
        self._is_held_back = True
        try:
            yield
        finally:
            self._is_held_back = False

    @property
    def _accepts_wakes(self) -> bool:
        return not (self._ends or self._is_held_back)

    async def stop_on_exit(self, *, everything: bool, limit_s: float) -> None:
        """Stop the instances that end with the proxy, or all, in bounded time.

        What is not gone by then is on record, and stopped by the next proxy.
        """
        for controller in self.controllers:
            if everything or controller.offer.backend.traits.child_process:
                controller.apply(StopRequested())
        stopping = {State.DRAINING, State.STOPPING}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while any(c.record.state in stopping for c in self.controllers):  # noqa: ASYNC110
                    await asyncio.sleep(_STOP_POLL_S)

    async def aclose(self) -> None:
        """Let go of the instances; they stay as they are."""
        self.stop_admitting()
        await self._tasks.aclose()

    def try_lease(self) -> Lease | None:
        """Claim the least busy ready instance, if there is one."""
        ready = [c for c in self.controllers if c.record.state is State.READY]
        chosen = min(ready, key=lambda c: c.record.leases, default=None)
        return self._claim(chosen) if chosen is not None else None

    def duplicate(self, lease: Lease) -> Lease | None:
        """Claim the instance of a lease once more; None if it serves no longer."""
        for controller, leases in self._leases.items():
            if lease in leases and controller.record.state is State.READY:
                return self._claim(controller)
        return None

    def observe(self) -> Lease | None:
        """Claim a ready instance for a request that is no use of it.

        The instance does not go in the middle of it all the same. So there is none
        once its idle time is over: such requests would keep it, if there always is one.
        """
        for controller in self.controllers:
            if controller.record.state is State.READY and not self._is_over(controller):
                return self._claim(controller, counts=False)
        return None

    def _is_over(self, controller: Controller) -> bool:
        """Tell whether only requests that are no use still hold an instance."""
        last_used, limit_s = (
            controller.record.last_used,
            controller.policy.idle_timeout_s,
        )
        if self._clock.now() < last_used + limit_s:
            return False
        return not any(lease.counts for lease in self._leases[controller])

    def _claim(self, chosen: Controller, *, counts: bool = True) -> Lease | None:
        launch_id = chosen.record.launch_id
        if chosen.upstream is None or launch_id is None:
            return None
        chosen.apply(LeaseGranted(launch_id))
        forget = self._leases[chosen].discard
        lease = Lease(chosen, chosen.upstream, launch_id, forget, counts=counts)
        self._leases[chosen].add(lease)
        return lease

    async def _note_use_forever(self) -> None:
        """Have the disk know of long answers that they go on."""
        beat_s = min(controller.use_grain_s for controller in self.controllers)
        while True:
            await asyncio.sleep(beat_s)
            for controller, leases in self._leases.items():
                used = next((lease for lease in leases if lease.is_used), None)
                if used is not None:
                    controller.note_use(used.launch_id)

    def ready_upstream(self) -> Upstream | None:
        """Return a ready instance for a request that is no use of it."""
        for controller in self.controllers:
            if controller.record.state is State.READY:
                return controller.upstream
        return None

    @property
    def is_ready(self) -> bool:
        """Whether an instance serves."""
        return self.ready_upstream() is not None

    @property
    def would_launch(self) -> bool:
        """Whether a wake would begin a launch, now or once what stops is gone.

        Not if one is under way, is to come anyway, or would not come for a wake.
        """
        states = {c.record.state for c in self.controllers}
        if states & {State.STARTING, State.READY} or not self._accepts_wakes:
            return False
        if states & {State.DRAINING, State.STOPPING}:
            return not self._wakes_again and not self._in_vain()
        first, now = self.controllers[0], self._clock.now()
        wake = Wake(self._draw_launch_id())
        woken = step(first.record, wake, now=now, policy=first.policy)
        return woken.record.launch_id == wake.launch_id

    def check_now(self) -> None:
        """Look at the instances now: one could not be reached."""
        for controller in self.controllers:
            controller.check_now()

    def wake(self, model: str | None = None, *, forced: bool = False) -> None:
        """Ask for an instance; joins a launch that is under way.

        Raises `StoreError` if the intent can't be written: nothing is launched.
        Raises `ConflictError` for a ``forced`` wish while wakes are held back.
        """
        if self._is_held_back and forced:
            raise ConflictError("the proxy deploys or deletes; wake afterwards")
        if not self._accepts_wakes:
            return
        awake = {State.STARTING, State.READY}
        woken = [c for c in self.controllers if c.record.state in awake]
        leaving = {State.DRAINING, State.STOPPING}
        if any(c.record.state in leaving for c in self.controllers):
            self._wakes_again = True
        for controller in woken or self.controllers[:1]:
            if forced or not self._was_just_woken(controller):
                controller.apply(Wake(self._draw_launch_id(), model, forced))

    def _was_just_woken(self, controller: Controller) -> bool:
        """Tell whether one more wish, of thousands a second perhaps, is no news."""
        record = controller.record
        passed_s = self._clock.now() - record.last_used
        return record.state is State.STARTING and 0 <= passed_s < _WAKE_GRAIN_S

    def stop(self) -> None:
        """Ask for every instance to end once its streams have.

        Who waits for one is told that it waits in vain.
        """
        self._wakes_again = False
        self._load_wishes.clear()
        self._give_up()
        for controller in self.controllers:
            controller.apply(StopRequested())

    async def lease(
        self,
        model: str | None,
        *,
        wait_s: float,
        load: LoadWish | None = None,
        joins: bool = False,
    ) -> Lease | None:
        """Claim a ready instance, waking it and waiting for it if need be.

        One who ``joins`` waits for what others woke, and wakes nothing.

        Returns None if there is none after ``wait_s`` seconds, or as soon as
        waiting is known to be in vain. Raises `HoldLimitError` if too many wait
        already, `StoreError` if the wake could not be written down.
        """
        if (lease := self.try_lease()) is not None:
            return lease
        wait_s = self.request_instance(model, wait_s=wait_s, load=load, joins=joins)
        wants = _Wants.TO_JOIN if joins else _Wants.TO_WAKE
        return await self._wait(wait_s, wants) if wait_s > 0 else None

    def request_instance(
        self,
        model: str | None,
        *,
        wait_s: float,
        load: LoadWish | None = None,
        joins: bool = False,
    ) -> float:
        """Wake an instance for a request that may wait for it, and needs ``load``.

        Nothing is woken or loaded for one that ``joins``. Returns how many seconds it
        is to wait: none if that is known to be in vain.
        Raises `StoreError` if the wake could not be written down.
        """
        if not joins:
            self._wanted_model = model
            if load is not None:
                self._load_wishes.add(load)
            self.wake(model)
        is_in_vain = self._in_vain() or not self._accepts_wakes
        is_in_vain = is_in_vain or (joins and not self._is_coming())
        return 0.0 if is_in_vain else max(wait_s, self._joining_s(), 0.0)

    def _joining_s(self) -> float:
        """How much longer a server that is there anyway may take to be joined.

        A proxy that has just started does not turn away its first request.
        """
        joined = [
            c for c in self.controllers if c.offer.backend.traits.externally_managed
        ]
        woken_at = max((c.record.woken_at for c in joined), default=0.0)
        return woken_at + _JOIN_GRACE_S - self._clock.now()

    def _is_coming(self) -> bool:
        """Tell whether a launch is under way, or comes by itself after a stop."""
        starting = any(c.record.state is State.STARTING for c in self.controllers)
        return starting or self._wakes_again or self._is_wanted()

    def _is_wanted(self) -> bool:
        """Tell whether anybody waits who may have an instance woken."""
        return _Wants.TO_WAKE in self._waiters.values()

    async def _wait(self, wait_s: float, wants: "_Wants") -> Lease | None:
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            with self._waiting(wants) as given:
                try:
                    async with asyncio.timeout_at(deadline):
                        if not await given:
                            return None
                except TimeoutError:
                    return None
            if (lease := self.try_lease()) is not None:
                return lease
            if not self._accepts_wakes:
                return None

    @contextlib.contextmanager
    def _waiting(self, wants: "_Wants") -> Iterator[asyncio.Future[bool]]:
        """Be among the waiting; forgotten however the wait ends.

        What is yielded becomes True once there may be a lease, False if there
        will be none.
        """
        if len(self._waiters) >= self._max_waiting:
            raise HoldLimitError(
                f"{self._max_waiting} requests wait already; try again later"
            )
        given: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters[given] = wants
        try:
            yield given
        finally:
            del self._waiters[given]

    def _on_transition(
        self, controller: Controller, _before: Record, after: Record
    ) -> None:
        match after.state:
            case State.STOPPING:
                for lease in list(self._leases[controller]):
                    lease.cut()
                if self._in_vain():
                    self._give_up()
            case State.READY:
                self._load_wishes.clear()
                if not self._waiters or self._releasing:
                    return
                self._releasing = True
                self._tasks.spawn(self._release_in_a_ramp(), name="ramp")
            case State.STARTING:
                self._wakes_again = False  # this is what was asked for
            case State.COLD if self._is_wanted() or self._wakes_again:
                self._tasks.spawn(self._wake_for_waiting(), name="wake again")
            case State.COLD:
                self._give_up()
            case State.COOLDOWN if self._in_vain() or not self._is_coming():
                self._wakes_again = False  # or it came when nobody asks any more
                self._give_up()

    def _in_vain(self) -> bool:
        """Tell whether no launch is under way or to come by itself."""
        return all(is_given_up(c.record, c.policy) for c in self.controllers)

    async def _release_in_a_ramp(self) -> None:
        """Let the waiting go in growing groups, not as one thundering herd."""
        group = _RAMP_FIRST
        try:
            while self._waiters and self.is_ready:
                asleep = [given for given in self._waiters if not given.done()]
                for given in asleep[:group]:
                    given.set_result(True)
                group *= 2
                await asyncio.sleep(_RAMP_PAUSE_S)
        finally:
            self._releasing = False

    async def _wake_for_waiting(self) -> None:
        """Ask again, now that it is cold, for what was asked while it stopped."""
        if not self._is_wanted() and not self._wakes_again:
            return
        self._wakes_again = False
        try:
            self.wake(self._wanted_model)
        except StoreError as error:
            self._log.error(log.STORE_FAILED, error=str(error))
            self._give_up()

    def _give_up(self) -> None:
        for given in self._waiters:
            if not given.done():
                given.set_result(False)

    async def _keep_joined(self, controller: Controller) -> None:
        """Join a server that is there anyway, and again whenever it was lost."""
        while True:
            if controller.record.state in {State.COLD, State.COOLDOWN}:
                with contextlib.suppress(StoreError):
                    controller.apply(Wake(self._draw_launch_id()))
            await asyncio.sleep(_JOIN_PAUSE_S)

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self.sweep()
            except (BackendError, TimeoutError) as error:
                self._log.warning(log.SWEEP_FAILED, error=str(error))
            except Exception:
                self._log.exception(log.TASK_CRASHED, task="sweep")
            await asyncio.sleep(_SWEEP_EVERY_S)

    async def sweep(
        self, *, dry_run: bool = False, thorough: bool = False
    ) -> list[LaunchId]:
        """Stop what is ours and no record names; return it.

        If ``thorough``, what costs nothing is removed too.
        """
        if self._is_held_back:
            raise ConflictError("the proxy deploys or deletes; sweep afterwards")
        found: list[LaunchId] = []
        for backend in self._backends():
            now = self._clock.wall()
            found += await sweep(backend, self._store, now=now, dry_run=dry_run)
            if thorough and not dry_run and isinstance(backend, SupportsTidy):
                with contextlib.suppress(ConflictError):  # the next launch uses it
                    await backend.tidy()
        return found

    async def release(self, *, dry_run: bool) -> list[str]:
        """Delete what is kept, stopped, for the next launch; return it in words."""
        if self._is_held_back:
            raise ConflictError("the proxy deploys or deletes; sweep afterwards")
        released: list[str] = []
        for backend in self._backends():
            if isinstance(backend, SupportsRelease):
                async with asyncio.timeout(_SWEEP_CALL_S):
                    released += await backend.release(dry_run=dry_run)
        return released

    async def kept(self) -> list[str]:
        """Return what costs while nothing runs, in words."""
        kept: list[str] = []
        for backend in self._backends():
            if isinstance(backend, SupportsIdleCosts):
                async with asyncio.timeout(_SWEEP_CALL_S):
                    kept += await backend.kept()
        return kept

    def _backends(self) -> list[Backend]:
        """Return each backend once."""
        backends = {id(c.offer.backend): c.offer.backend for c in self.controllers}
        return list(backends.values())


async def sweep(
    backend: Backend,
    store: LaunchRegister,
    *,
    now: float | None = None,
    dry_run: bool = False,
) -> list[LaunchId]:
    """Stop the instances of ours that no record names; return their launches.

    The cloud is asked first and the records after: a launch is on record before
    its cloud is called, so one that begins meanwhile is never taken for lost. What a
    proxy on a copy of the state folder lives by at the date ``now`` stays; without a
    date nobody can tell.
    """
    async with asyncio.timeout(_SWEEP_CALL_S):
        owned = await backend.owned()
    strays = sorted(set(owned) - store.launch_ids())
    failure: Exception | None = None
    if strays and now is not None and isinstance(backend, SupportsOwners):
        try:
            async with asyncio.timeout(_SWEEP_CALL_S):
                strays = _without_twins(strays, await backend.belongings(), store, now)
        except (BackendError, TimeoutError) as error:
            failure = error  # what was begun from here is no other's in any case
            strays = [launch_id for launch_id in strays if store.remembers(launch_id)]
    for launch_id in () if dry_run else strays:
        try:
            async with asyncio.timeout(_SWEEP_CALL_S):
                await backend.stop(launch_id)
        except (BackendError, TimeoutError) as error:
            failure = error  # the others are stopped all the same
        else:
            structlog.get_logger().warning(log.INSTANCE_SWEPT, launch_id=launch_id)
    if failure is not None:
        raise failure
    return strays


def _without_twins(
    strays: list[LaunchId],
    belongings: list[Belonging],
    store: LaunchRegister,
    now: float,
) -> list[LaunchId]:
    """Return the strays but for those of a proxy on a copy of the state folder.

    A stray is named by its launch, or by its kind and id: ``machine-17``.
    """
    named = {part for name in strays for part in (name, name.partition("-")[2])}
    spared: set[str] = set()
    for one in belongings:
        names = {str(one.launch_id), one.id.rpartition(" ")[2]}
        if names & named and twins([one], one.owner_id, store.remembers, now):
            spared |= names
            structlog.get_logger().warning(log.STATE_COPIED, reason=twin_words(one))
    return [
        name
        for name in strays
        if name not in spared and name.partition("-")[2] not in spared
    ]
