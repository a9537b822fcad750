"""Lease the ready instances of one pool: which one, and to whom."""

import asyncio
from collections.abc import Sequence

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.lease import Lease, Leases


class Leasing:
    """Holds the leases on every instance of a pool."""

    def __init__(self, controllers: Sequence[Controller], clock: Clock) -> None:
        self._leases = {one: Leases(one, clock) for one in controllers}

    @property
    def in_flight(self) -> int:
        """Return how many leases are held now."""
        return sum(controller.record.leases for controller in self._leases)

    @property
    def ready_count(self) -> int:
        """Return how many instances are ready."""
        return sum(one.record.state is State.READY for one in self._leases)

    def has_ready(self, launch_id: LaunchId) -> bool:
        """Tell whether the instance of a launch is ready."""
        return any(_is_ready(one.record, launch_id) for one in self._leases)

    def claim(self, only: LaunchId | None = None) -> Lease | None:
        """Lease the ready instance with the fewest requests, if one is ready.

        ``only``: the instance of that launch.
        """
        ready = [one for one in self._leases if _is_ready(one.record, only)]
        chosen = min(ready, key=lambda one: one.record.leases, default=None)
        return self._leases[chosen].claim() if chosen is not None else None

    def duplicate(self, lease: Lease) -> Lease | None:
        """Lease the instance of a lease once more; None if it serves no longer."""
        for controller, leases in self._leases.items():
            if lease in leases and controller.record.state is State.READY:
                return leases.claim()
        return None

    def observe(self, only: LaunchId | None = None) -> Lease | None:
        """Lease a ready instance to a request that does not reset its idle timer.

        ``only``: the instance of that launch.
        """
        for controller, leases in self._leases.items():
            if _is_ready(controller.record, only) and leases.may_observe():
                return leases.claim(counts=False)
        return None

    def observe_all(self) -> list[Lease]:
        """Lease every ready instance to a request that does not reset idle timers."""
        claimed = (
            leases.claim(counts=False)
            for leases in self._leases.values()
            if leases.may_observe()
        )
        return [lease for lease in claimed if lease is not None]

    def ready_upstream(self) -> Upstream | None:
        """Return a ready instance, without a lease on it; None if none is ready."""
        for controller in self._leases:
            if controller.record.state is State.READY:
                return controller.upstream
        return None

    def cut(self, controller: Controller) -> None:
        """End every request on an instance: it is being stopped."""
        self._leases[controller].cut()

    async def note_use_forever(self) -> None:
        """Save periodically which instances have a request in progress."""
        beat_s = min(controller.use_grain_s for controller in self._leases)
        while True:
            await asyncio.sleep(beat_s)
            for leases in self._leases.values():
                leases.note_use()


def _is_ready(record: Record, only: LaunchId | None) -> bool:
    """Tell whether an instance serves, and is that of a launch, if one is named."""
    return record.state is State.READY and (only is None or record.launch_id == only)
