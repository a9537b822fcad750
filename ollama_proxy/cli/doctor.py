"""Examine a deployment without serving: for ``check`` and a ``sweep`` alone."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_fixed,
)

from ollama_proxy.base.clock import Clock, open_clock, this_machine
from ollama_proxy.base.errors import BackendError, StartupError, TransientError
from ollama_proxy.base.moments import unset_date
from ollama_proxy.cli.launch_plan import launch_plan
from ollama_proxy.cli.own_upstream import refuse_own_upstream
from ollama_proxy.composition import open_backend
from ollama_proxy.config.settings import Settings, backend_name
from ollama_proxy.core.lifecycle.record import LaunchId, is_launch
from ollama_proxy.core.ollama.catalog import sizes_of
from ollama_proxy.fleet.backend import (
    Backend,
    Finding,
    SupportsCheck,
    SupportsDeploy,
    SupportsExpiry,
    SupportsIdleCosts,
    SupportsOwners,
    SupportsRelease,
    SupportsTidy,
    place_of,
)
from ollama_proxy.fleet.model_room import room_findings
from ollama_proxy.fleet.owners import others, with_removal
from ollama_proxy.fleet.redeployment import closing_steps, order_steps
from ollama_proxy.fleet.stop_until_gone import until_gone
from ollama_proxy.fleet.sweeper import sweep
from ollama_proxy.server.binding import bind
from ollama_proxy.store.opening import open_store
from ollama_proxy.store.ports import Ownership, Store

_TIDY_TRIES = 30
_TIDY_PAUSE_S = 10.0


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything that `serve` would need; create nothing that costs."""
    findings = [
        Finding("settings", ok=True, detail=settings.selection.sentence),
        _address(settings),
        *await _upstream(settings),
    ]
    if settings.selection.notice:
        note = Finding("settings of others", ok=True, detail=settings.selection.notice)
        findings.append(note)
    findings += [
        Finding("a former name", ok=True, detail=sentence, warns=True)
        for sentence in settings.renamed
    ]
    if (unset := unset_date(this_machine().wall())) is not None:
        findings.append(Finding("date", ok=False, detail=unset))
    try:
        store = open_store(settings.state_dir)
    except StartupError as error:
        return [*findings, Finding("state folder", ok=False, detail=str(error))]
    findings.append(Finding("state folder", ok=True, detail=str(settings.state_dir)))
    findings += [Finding("state", ok=False, detail=what) for what in store.damage]
    with closing(store):
        opened = open_backend(settings, store, open_clock(store))
        async with aclosing(opened) as backend:
            sentence = launch_plan(settings, backend).sentence
            findings.append(Finding("what is started", ok=True, detail=sentence))
            findings += await _backend(backend)
            findings += await _others(backend, store)
            place = store.place(place_of(backend_name(settings), backend.traits))
            findings += room_findings(
                settings.models, backend.traits, sizes_of(place.contents())
            )
    return findings


def _address(settings: Settings) -> Finding:
    try:
        bind(settings.listen).close()
    except StartupError as error:
        return Finding("address", ok=False, detail=str(error))
    return Finding("address", ok=True, detail=settings.listen.url)


async def _upstream(settings: Settings) -> list[Finding]:
    """Tell of an upstream that is the proxy itself, or unsafe: both without asking."""
    try:
        await refuse_own_upstream(settings)
    except StartupError as error:
        return [Finding("upstream", ok=False, detail=str(error))]
    return [
        Finding("upstream, a warning", ok=True, detail=warning)
        for warning in settings.of_backend.warnings()
    ]


async def _backend(backend: Backend) -> list[Finding]:
    found: list[Finding] = []
    try:
        if isinstance(backend, SupportsCheck):
            found = await backend.check()
        owned = str(len(await backend.owned()))
    except BackendError as error:
        return [*found, Finding("instances of ours", ok=False, detail=str(error))]
    return [*found, Finding("instances of ours", ok=True, detail=owned)]


async def _others(backend: Backend, store: Ownership) -> list[Finding]:
    """Tell what other deployments have in the same place, and how to remove it."""
    if not isinstance(backend, SupportsOwners):
        return []
    try:
        found = others(await backend.belongings(), store.owner_id)
    except BackendError as error:
        return [Finding("other owners", ok=False, detail=str(error))]
    now = this_machine().wall()
    return [
        Finding("another owner's", ok=True, detail=with_removal(one, now), warns=True)
        for one in found
    ]


@asynccontextmanager
async def opened_alone(
    settings: Settings,
) -> AsyncIterator[tuple[Store, Clock, Backend]]:
    """Open the state folder and the backend, as no proxy has them meanwhile."""
    with closing(open_store(settings.state_dir)) as store:
        clock = open_clock(store)
        async with aclosing(open_backend(settings, store, clock)) as backend:
            yield store, clock, backend


async def sweep_expired(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Delete what no proxy has wanted for a lease's length, with no state at all.

    Raises `StartupError` without a date, by which leases end.
    """
    if (unset := unset_date(this_machine().wall())) is not None:
        raise StartupError(f"no lease can be judged: {unset}")
    with tempfile.TemporaryDirectory() as folder:
        alone = settings.model_copy(update={"state_dir": Path(folder)})
        async with opened_alone(alone) as (_, _, backend):
            if not isinstance(backend, SupportsExpiry):
                name = backend_name(settings)
                message = f"the backend {name!r} has no leases that could expire"
                raise StartupError(message)
            found = await backend.sweep_expired(dry_run=dry_run)
            left = [] if dry_run else await _tidied(backend)
    return {"swept": found, "kept": left, "dry_run": dry_run}


async def _tidied(backend: Backend) -> list[str]:
    """Remove leftovers that cost nothing; return what stays, in words.

    What is in use for minutes after an instance has gone is waited for.
    """
    if not isinstance(backend, SupportsTidy):
        return []
    repeated = AsyncRetrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(_TIDY_TRIES),
        wait=wait_fixed(_TIDY_PAUSE_S),
        sleep=asyncio.sleep,
        reraise=True,
    )
    try:
        await repeated(backend.tidy)
    except TransientError as error:
        return [f"{error}; sweep again later"]
    except BackendError as error:
        return [f"what costs nothing could not be removed: {error}"]
    return []


async def set_up(
    settings: Settings, image: str | None, replaced: Collection[str] = ()
) -> AsyncGenerator[str]:
    """Carry out what `order_steps` begins; tell each step.

    Raises `StartupError` while a proxy runs on the state folder.
    """
    async with opened_alone(settings) as (store, _, backend):
        steps = order_steps(backend_name(settings), backend, image, replaced)
        async with closing_steps(steps):
            async for step in steps:
                yield step
        if image is None:
            store.forget(store.launch_ids())


async def look_alone(settings: Settings) -> list[str]:
    """Return what there is of this deployment while no proxy runs, in words."""
    async with opened_alone(settings) as (_, _, backend):
        if isinstance(backend, SupportsDeploy):
            return await backend.deployed()
        return [f"instance of launch {name}" for name in await backend.owned()]


async def stop_alone(settings: Settings) -> list[LaunchId]:
    """Stop every launch of this deployment while no proxy runs; return them.

    Those on record count, whatever the cloud lists. What rests stays. The next proxy
    sees each of them gone. Raises `BackendError` once all were tried if one stays.
    """
    problem: BackendError | None = None
    async with opened_alone(settings) as (store, _, backend):
        owned = {name for name in await backend.owned() if is_launch(name)}
        found = sorted(owned | store.launch_ids())
        for launch_id in found:
            try:
                await until_gone(backend, launch_id)
            except BackendError as error:
                problem = error
            else:
                store.forget([launch_id])
    if problem is not None:
        raise problem
    return found


async def sweep_alone(
    settings: Settings, *, dry_run: bool, stopped: bool = False
) -> dict[str, Any]:
    """Sweep while no proxy runs on this state folder; if ``stopped``, what is kept."""
    async with opened_alone(settings) as (store, _, backend):
        now = this_machine().wall()
        swept = await sweep(backend, store, now=now, dry_run=dry_run)
        found: list[str] = [*swept]
        if stopped and isinstance(backend, SupportsRelease):
            found += await backend.release(dry_run=dry_run)
        left = [] if dry_run else await _tidied(backend)
        kept = await backend.kept() if isinstance(backend, SupportsIdleCosts) else []
    return {"swept": found, "kept": [*kept, *left], "dry_run": dry_run}
