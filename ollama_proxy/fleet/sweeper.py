"""Stop instances of ours that no record names, and list what costs while cold."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import BackendError, ConflictError, HeldBackError
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ports import LaunchRegister
from ollama_proxy.fleet.backend import (
    Backend,
    Belonging,
    SupportsIdleCosts,
    SupportsOwners,
    SupportsRelease,
    SupportsTidy,
)
from ollama_proxy.fleet.owners import twin_words, twins

Found = TypeVar("Found")


class Sweeper:
    """Sweeps the clouds of some backends, at intervals and on request.

    ``is_held_back``: sweeps are refused, because a deployment is being changed.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        store: LaunchRegister,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._backends = list({id(backend): backend for backend in backends}.values())
        self._store = store
        self._clock = clock
        self._timing = timing
        self._log = structlog.get_logger()
        self.is_held_back = False

    async def run(self) -> None:
        """Sweep at once, then every ``sweep_every_s``, until cancelled."""
        while True:
            try:
                await self.sweep()
            except (BackendError, TimeoutError) as error:
                self._log.warning(log.SWEEP_FAILED, error=str(error))
            except Exception:
                self._log.exception(log.TASK_CRASHED, task="sweep")
            await asyncio.sleep(self._timing.sweep_every_s)

    async def sweep(
        self, *, dry_run: bool = False, thorough: bool = False
    ) -> list[LaunchId]:
        """Stop our instances that no record names, and return their launch ids.

        If ``thorough``, things that cost nothing are removed too.
        """
        self._refuse_if_held_back()

        async def swept(backend: Backend) -> list[LaunchId]:
            found = await sweep(
                backend,
                self._store,
                now=self._clock.wall(),
                dry_run=dry_run,
                call_s=self._timing.sweep_call_s,
            )
            if thorough and not dry_run and isinstance(backend, SupportsTidy):
                with contextlib.suppress(ConflictError):  # the next launch uses it
                    await backend.tidy()
            return found

        return await self._of_each(swept)

    async def release(self, *, dry_run: bool) -> list[str]:
        """Delete stopped instances kept for the next launch; return descriptions."""
        self._refuse_if_held_back()

        async def released(backend: Backend) -> list[str]:
            if not isinstance(backend, SupportsRelease):
                return []
            async with asyncio.timeout(self._timing.sweep_call_s):
                return await backend.release(dry_run=dry_run)

        return await self._of_each(released)

    async def _of_each(
        self, ask: Callable[[Backend], Awaitable[list[Found]]]
    ) -> list[Found]:
        """Return what every backend has; one that fails keeps no other from its turn.

        Raises its error after the last. Those of further ones are logged.
        """
        found: list[Found] = []
        failures: list[Exception] = []
        for backend in self._backends:
            try:
                found += await ask(backend)
            except (BackendError, TimeoutError) as error:
                failures.append(error)
        for further in failures[1:]:
            self._log.warning(log.SWEEP_FAILED, error=str(further))
        if failures:
            raise failures[0]
        return found

    def _refuse_if_held_back(self) -> None:
        if self.is_held_back:
            raise HeldBackError("the proxy deploys or deletes; sweep afterwards")

    async def idle_costs(self) -> list[str]:
        """Return what costs while nothing runs, in words."""

        async def kept(backend: Backend) -> list[str]:
            if not isinstance(backend, SupportsIdleCosts):
                return []
            async with asyncio.timeout(self._timing.sweep_call_s):
                return await backend.kept()

        return await self._of_each(kept)


async def sweep(
    backend: Backend,
    store: LaunchRegister,
    *,
    now: float | None = None,
    dry_run: bool = False,
    call_s: float = STANDARD.sweep_call_s,
) -> list[LaunchId]:
    """Stop our instances that no record names; return their launch ids.

    The cloud is listed before the records are read: a launch is on record before its
    cloud is called, so a launch that begins in between is never mistaken for a stray.
    Instances in use by a proxy on a copy of the state folder at the date ``now`` are
    left alone; without a date these can't be recognised.
    """
    async with asyncio.timeout(call_s):
        owned = await backend.owned()
    strays = sorted(set(owned) - store.launch_ids())
    failure: Exception | None = None
    if strays and now is not None and isinstance(backend, SupportsOwners):
        try:
            async with asyncio.timeout(call_s):
                strays = _without_twins(strays, await backend.belongings(), store, now)
        except (BackendError, TimeoutError) as error:
            failure = error  # launches begun from this folder are ours in any case
            strays = [launch_id for launch_id in strays if store.remembers(launch_id)]
    for launch_id in () if dry_run else strays:
        try:
            async with asyncio.timeout(call_s):
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
    """Return the strays without those of a proxy on a copy of the state folder.

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
