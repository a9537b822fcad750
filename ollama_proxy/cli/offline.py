"""Carry out orders while no proxy runs: sweep, stop, look, deploy, delete."""

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
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.composition import open_backend
from ollama_proxy.config.settings import Settings, backend_name
from ollama_proxy.core.lifecycle.record import LaunchId, is_launch
from ollama_proxy.fleet.backend import (
    Backend,
    SupportsDeploy,
    SupportsExpiry,
    SupportsIdleCosts,
    SupportsRelease,
    SupportsTidy,
)
from ollama_proxy.fleet.redeployment import closing_steps, order_steps
from ollama_proxy.fleet.stop_until_gone import until_gone
from ollama_proxy.fleet.sweeper import sweep
from ollama_proxy.store.opening import open_store
from ollama_proxy.store.ports import Store

_TIDY_TRIES = 30


@asynccontextmanager
async def opened_alone(
    settings: Settings,
) -> AsyncIterator[tuple[Store, Clock, Backend]]:
    """Open the state folder and the backend, as no proxy has them meanwhile."""
    with closing(open_store(settings.state_dir)) as store:
        clock = open_clock(store)
        async with aclosing(open_backend(settings, store, clock)) as backend:
            yield store, clock, backend


def require_date(without: str) -> None:
    """Raise `StartupError` if the date was never set; ``without`` says what that means.

    Leases are compared with the date, and clouds refuse requests with a wrong one.
    """
    if (unset := unset_date(this_machine().wall())) is not None:
        raise StartupError(f"{without}: {unset}")


async def sweep_expired(
    settings: Settings, *, dry_run: bool, timing: Timing = STANDARD
) -> dict[str, Any]:
    """Delete what no proxy has renewed for a lease's length; uses no state at all.

    Raises `StartupError` without a date, which leases are compared with.
    """
    require_date("no lease can be judged")
    with tempfile.TemporaryDirectory() as folder:
        alone = settings.model_copy(update={"state_dir": Path(folder)})
        async with opened_alone(alone) as (_, _, backend):
            if not isinstance(backend, SupportsExpiry):
                name = backend_name(settings)
                message = f"the backend {name!r} has no leases that could expire"
                raise StartupError(message)
            found = await backend.sweep_expired(dry_run=dry_run)
            left = [] if dry_run else await _tidied(backend, timing.tidy_pause_s)
    return {"swept": found, "kept": left, "dry_run": dry_run}


async def _tidied(backend: Backend, pause_s: float) -> list[str]:
    """Remove leftovers that cost nothing; return what stays, in words.

    Waits for things that stay in use for minutes after their instance is gone.
    """
    if not isinstance(backend, SupportsTidy):
        return []
    repeated = AsyncRetrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(_TIDY_TRIES),
        wait=wait_fixed(pause_s),
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
    """Carry out the steps of `order_steps` and yield each.

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

    Includes launches on record that the cloud does not list. Stopped instances that are
    kept stay. The next proxy finds each of them gone. Raises `BackendError` if one
    could not be stopped, after all were tried.
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
    settings: Settings,
    *,
    dry_run: bool,
    stopped: bool = False,
    timing: Timing = STANDARD,
) -> dict[str, Any]:
    """Sweep while no proxy runs here; if ``stopped``, also kept instances."""
    async with opened_alone(settings) as (store, _, backend):
        now = this_machine().wall()
        swept = await sweep(backend, store, now=now, dry_run=dry_run)
        found: list[str] = [*swept]
        if stopped and isinstance(backend, SupportsRelease):
            found += await backend.release(dry_run=dry_run)
        left = [] if dry_run else await _tidied(backend, timing.tidy_pause_s)
        kept = await backend.kept() if isinstance(backend, SupportsIdleCosts) else []
    return {"swept": found, "kept": [*kept, *left], "dry_run": dry_run}
