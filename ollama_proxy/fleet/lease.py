"""Lease a ready instance to requests."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.lifecycle.events import LeaseGranted, Released, Used
from ollama_proxy.core.lifecycle.record import LaunchId, State
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.controller import Controller


class Lease:
    """Claims a ready instance for one request, until it is released.

    Meanwhile the instance is not stopped for idleness. ``counts``: the request may
    reset the idle timer. ``is_used``: the instance has worked on the request, so its
    end resets the timer. ``was_cut``: the instance was lost during the request.
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
        self.mark_alive = controller.mark_alive
        self.check_now = controller.check_now

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

    def mark_used(self) -> None:
        """Record that the instance works on the request, until it is released."""
        if self.counts and not self.is_used:
            self.is_used = True
            self._controller.note_use(self.launch_id)

    def mark_moving(self) -> None:
        """Record that the instance worked on the request just now."""
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


class Leases:
    """Holds the leases on the instance of one slot."""

    def __init__(self, controller: Controller, clock: Clock) -> None:
        self._controller = controller
        self._clock = clock
        self._held: set[Lease] = set()

    def __contains__(self, lease: Lease) -> bool:
        return lease in self._held

    def claim(self, *, counts: bool = True) -> Lease | None:
        """Lease the instance; None if it has no address."""
        launch_id = self._controller.record.launch_id
        upstream = self._controller.upstream
        if upstream is None or launch_id is None:
            return None
        self._controller.apply(LeaseGranted(launch_id))
        forget = self._held.discard
        lease = Lease(self._controller, upstream, launch_id, forget, counts=counts)
        self._held.add(lease)
        return lease

    def cut(self) -> None:
        """End every request on the instance: it is being stopped."""
        for lease in list(self._held):
            lease.cut()

    def may_observe(self) -> bool:
        """Tell whether a request that does not reset the idle timer gets a lease.

        Refused once the idle time is over: a steady flow of such requests would
        otherwise keep the instance for ever.
        """
        record = self._controller.record
        if record.state is not State.READY:
            return False
        limit_s = self._controller.policy.idle_timeout_s
        if self._clock.now() < record.last_used + limit_s:
            return True
        return any(lease.counts for lease in self._held)

    def note_use(self) -> None:
        """Save that a request is in progress, if one is."""
        used = next((lease for lease in self._held if lease.is_used), None)
        if used is not None:
            self._controller.note_use(used.launch_id)
