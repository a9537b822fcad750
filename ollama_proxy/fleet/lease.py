"""Lease a ready instance to requests."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.instance_choice import Candidate
from ollama_proxy.core.lifecycle.events import LeaseGranted, Released, Used
from ollama_proxy.core.lifecycle.record import LaunchId, State
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.instance_load import InstanceLoad
from ollama_proxy.fleet.leased_instance import LeasedInstance


class Lease:
    """Claims a ready instance for one request, until it is released.

    Meanwhile the instance is not stopped for idleness, unless the lease ``yields``: its
    request may not wake one, so it does not keep one either. ``counts``: the request
    may reset the idle timer. ``is_used``: the instance has worked on the request, so
    its end resets the timer. ``was_cut``: the instance was lost during the request, of
    which ``was_sent`` a part.
    ``takes_slot``: it is one of those of which the instance gets only so many at a
    time, for the ``model``.
    """

    def __init__(
        self,
        instance: LeasedInstance,
        upstream: Upstream,
        launch_id: LaunchId,
        leases: "Leases",
        *,
        counts: bool = True,
        takes_slot: bool = True,
        model: str | None = None,
        yields: bool = False,
    ) -> None:
        self._instance = instance
        self._leases = leases
        self.yields = yields
        self.counts = counts and not yields
        self.takes_slot = takes_slot
        self.model = model
        self._held = True
        self.is_used = False
        self.was_cut = False
        self.was_sent = False
        self.launch_id = launch_id
        self._scope: asyncio.Timeout | None = None
        self.upstream = upstream
        self.mark_alive = instance.mark_alive

    def until_cut(self, limit_s: float | None = None) -> asyncio.Timeout:
        """Return a scope that raises `TimeoutError` when the instance is lost.

        It also does when ``limit_s`` passes, unless `lift_limit` is called before.
        """
        self._scope = asyncio.timeout(0.0 if self.was_cut else limit_s)
        return self._scope

    def lift_limit(self) -> None:
        """Let the request take as long as it takes from now on."""
        if self._scope is not None and not self.was_cut:
            self._scope.reschedule(None)

    def cut(self) -> None:
        """End the request: the instance will not answer it any more."""
        self.was_cut = True
        if self._scope is not None:
            with contextlib.suppress(RuntimeError):  # the scope was left already
                self._scope.reschedule(asyncio.get_running_loop().time())

    def mark_sent(self) -> None:
        """Record that the instance may have received a part of the request."""
        self.was_sent = True

    def mark_used(self) -> None:
        """Record that the instance works on the request, until it is released."""
        if self.counts and not self.is_used:
            self.is_used = True
            self._instance.note_use(self.launch_id)
            self._leases.note_used(self)
        elif self.yields:
            self._leases.note_answer(self)

    def mark_moving(self) -> None:
        """Record that the instance worked on the request just now."""
        if self.counts:
            self._instance.apply(Used(self.launch_id))

    def keep(self) -> None:
        """Yield no more: a request that may wake an instance wants the same work."""
        if self._held and self.yields:
            self.yields, self.counts = False, True
            self._instance.apply(LeaseGranted(self.launch_id))
            self._instance.apply(Released(self.launch_id, yields=True))

    def check_now(self) -> None:
        """Have the instance looked at now: it failed the request.

        Does nothing for a node, of which `failed` is called instead.
        """
        if self._instance.node_id is None:
            self._leases.note_failure()
            self._instance.check_now()

    @property
    def node_id(self) -> str | None:
        """Return the name of the node that is leased; None if it is no node."""
        return self._instance.node_id

    @property
    def serves_all(self) -> bool:
        """Tell whether the instance takes every request; else ``/execute`` alone."""
        return self._instance.serves_all

    def first_byte_limit_s(self, model: str | None, timeout_s: float) -> float:
        """Return how long the first byte may take, for a model that has ``timeout_s``.

        A model may have to be loaded first, if it is not known to be in memory there.
        """
        return timeout_s + self._leases.load_limit_s(model)

    def failed(self, reason: str) -> None:
        """Take in that the instance failed the request, for its state and its cost."""
        self._leases.note_failure()
        self._instance.request_failed(reason)

    def answered(self) -> None:
        """Take in that the instance began an answer that is no failure."""
        self._instance.request_answered()

    def release(self) -> None:
        """Give the claim back; a second time changes nothing."""
        if self._held:
            self._held = False
            self._leases.forget(self)
            released = Released(self.launch_id, self.is_used, self.yields)
            self._instance.apply(released)
            self._leases.note_released(self)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Leases:
    """Holds the leases on one instance.

    - ``has_free_slot``: one more request may be sent to it, if it is ready.
    - ``load``: learns which requests the instance has, if its pool has several.
    - ``freed``: called whenever a slot becomes free. ``served``: called once a request
      is being answered.
    """

    def __init__(
        self,
        instance: LeasedInstance,
        clock: Clock,
        *,
        load: InstanceLoad | None = None,
        freed: Callable[[], None] | None = None,
        served: Callable[[], None] | None = None,
    ) -> None:
        self.instance = instance
        self.load = load
        self.candidate = load.candidate if load else Candidate(instance.slot)
        self._clock = clock
        self._slots = instance.offer.slots
        self.is_external = instance.offer.is_external
        self._freed = freed
        self._served = served
        self._held: set[Lease] = set()
        self._in_slots: set[Lease] = set()
        self.has_free_slot = True

    def __contains__(self, lease: Lease) -> bool:
        return lease in self._held

    def is_of(self, launch_id: LaunchId) -> bool:
        """Tell whether the instance is that of a launch."""
        return self.instance.record.launch_id == launch_id

    @property
    def has_room(self) -> bool:
        """Tell whether the instance is ready and one of its slots is free."""
        return self.has_free_slot and self.instance.record.state is State.READY

    def claim(
        self,
        *,
        counts: bool = True,
        takes_slot: bool = True,
        model: str | None = None,
        yields: bool = False,
    ) -> Lease | None:
        """Lease the instance; None if it has no address."""
        instance = self.instance
        launch_id, upstream = instance.record.launch_id, instance.upstream
        if upstream is None or launch_id is None:
            return None
        instance.apply(LeaseGranted(launch_id, yields))
        lease = Lease(
            instance,
            upstream,
            launch_id,
            self,
            counts=counts,
            takes_slot=takes_slot,
            model=model,
            yields=yields,
        )
        self._held.add(lease)
        if takes_slot:
            self._in_slots.add(lease)
            self._count_slots()
            if self.load is not None:
                self.load.begin(lease, model)
        return lease

    def _count_slots(self) -> None:
        """Work out whether a slot is free: each request asks that of each instance."""
        self.has_free_slot = self._slots is None or len(self._in_slots) < self._slots

    def forget(self, lease: Lease) -> None:
        """Hold a lease no longer that is given back."""
        self._held.discard(lease)
        if lease.takes_slot:
            self._in_slots.discard(lease)
            self._count_slots()
            if self.load is not None:
                self.load.end(lease, used=lease.is_used)

    def note_used(self, lease: Lease) -> None:
        """Take in that an answer has begun, which is use."""
        self.note_answer(lease)
        if self._served is not None:
            self._served()

    def note_answer(self, lease: Lease) -> None:
        """Take in that an answer has begun."""
        if self.load is not None and lease.takes_slot:
            self.load.note_answer(lease)

    def load_limit_s(self, model: str | None) -> float:
        """Return how much longer an answer may take whose model has to be loaded."""
        return self.load.load_limit_s(model) if self.load is not None else 0.0

    def note_failure(self) -> None:
        """Take in that the instance failed a request."""
        if self.load is not None:
            self.load.note_failure()

    def note_released(self, lease: Lease) -> None:
        """Let the next request have the slot that has become free."""
        if self._freed is not None and lease.takes_slot:
            self._freed()

    def begin_anew(self, model: str | None) -> None:
        """Begin with another instance; what the one before had takes no slot of it.

        ``model``: what is in its memory; None: not known.
        """
        self._in_slots.clear()
        self._count_slots()
        if self.load is not None:
            self.load.begin_anew(model)

    def cut(self) -> None:
        """End every request on the instance: it is being stopped."""
        for lease in list(self._held):
            lease.cut()

    def may_observe(self) -> bool:
        """Tell whether a request that does not reset the idle timer gets a lease.

        Refused once the idle time is over: a steady flow of such requests would
        otherwise keep the instance for ever.
        """
        record = self.instance.record
        if record.state is not State.READY:
            return False
        policy = self.instance.policy
        if policy.is_kept or self._clock.now() < (
            record.last_used + policy.idle_timeout_s
        ):
            return True
        return any(lease.counts for lease in self._held)

    def note_use(self) -> None:
        """Save that a request is in progress, if one is."""
        used = next((lease for lease in self._held if lease.is_used), None)
        if used is not None:
            self.instance.note_use(used.launch_id)
