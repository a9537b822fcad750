"""Carry out orders while no proxy runs: sweep, stop, look, deploy, delete."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Collection
from pathlib import Path
from typing import Any

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_fixed,
)

from ollama_proxy.base.clock import this_machine
from ollama_proxy.base.errors import BackendError, StartupError, TransientError
from ollama_proxy.base.moments import unset_date
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.cli.opened_offers import chosen_offer, opened_alone
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import LaunchId, is_launch
from ollama_proxy.core.slot_keys import parse_slot_key
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
from ollama_proxy.store.ports import Store

_TIDY_TRIES = 30


class Trying:
    """Keeps what fails with one of several offers, so that the others have their turn.

    What fails with the only one is raised at once. ``failed``: a line per failure.
    """

    def __init__(self, offers: int) -> None:
        self._has_others = offers > 1
        self.failed: list[str] = []
        self._offer = ""

    def offer(self, name: str) -> "Trying":
        """Say which offer has its turn."""
        self._offer = name
        return self

    def __enter__(self) -> None:
        """Begin with an offer."""

    def __exit__(
        self, _kind: object, error: BaseException | None, _trace: object
    ) -> bool:
        if not (self._has_others and isinstance(error, BackendError | TimeoutError)):
            return False
        self.failed.append(f"{self._offer}: {str(error) or type(error).__name__}")
        return True

    def told(self) -> dict[str, list[str]]:
        """Return what failed, as a part of what a command tells."""
        return {"failed": self.failed} if self.failed else {}


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
    swept: list[str] = []
    left: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        alone = settings.model_copy(update={"state_dir": Path(folder)})
        async with opened_alone(alone) as (_, _, backends):
            leasing = {
                name: one
                for name, one in backends.items()
                if isinstance(one, SupportsExpiry)
            }
            if not leasing:
                names = ", ".join(repr(offer.backend) for offer in settings.offers)
                raise StartupError(
                    f"the backend {names} has no leases that could expire"
                )
            trying = Trying(len(leasing))
            for name, backend in leasing.items():
                with trying.offer(name):
                    swept += await backend.sweep_expired(dry_run=dry_run)
                    left += (
                        [] if dry_run else await _tidied(backend, timing.tidy_pause_s)
                    )
    return {"swept": swept, "kept": left, "dry_run": dry_run} | trying.told()


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
    settings: Settings,
    image: str | None,
    replaced: Collection[str] = (),
    offer: str | None = None,
) -> AsyncGenerator[str]:
    """Carry out what `order_steps` begins; yield each step.

    Without a name of an ``offer``, everything is deleted, of every offer; what is
    deployed belongs to the only one that can have it. Raises `StartupError` while a
    proxy runs on the state folder.
    """
    names = [one.name for one in settings.offers]
    names = names if offer is None else [chosen_offer(settings, offer).name]
    async with opened_alone(settings) as (store, _, backends):
        able = [one for one in names if isinstance(backends[one], SupportsDeploy)]
        if image is not None and len(able) > 1:
            chosen_offer(settings, None)
        for name in able or names[:1]:
            steps = order_steps(name, backends[name], image, replaced)
            async with closing_steps(steps):
                async for step in steps:
                    yield step if len(backends) == 1 else f"{name}: {step}"
            if image is None:
                store.forget(_launches_of(store, name))
        for name in names if image is None and able else ():
            if name not in able:
                yield (
                    f"{name}: nothing of it is deployed; `ollama-proxy stop` ends its"
                    " instances"
                )


def _launches_of(store: Store, offer: str) -> set[LaunchId]:
    """Return the launches on record for an offer."""
    return {
        launch_id
        for slot, launch_id in store.launches().items()
        if (key := parse_slot_key(slot)) is not None and key.offer == offer
    }


async def look_alone(settings: Settings) -> list[str]:
    """Describe what this deployment has while no proxy runs; see `Trying`."""
    lines: list[str] = []
    async with opened_alone(settings) as (_, _, backends):
        several, trying = len(backends) > 1, Trying(len(backends))
        for name, backend in backends.items():
            with trying.offer(name):
                found = await _there(backend)
                lines += [f"{name}: {line}" if several else line for line in found]
    return lines + trying.failed


async def _there(backend: Backend) -> list[str]:
    if isinstance(backend, SupportsDeploy):
        return await backend.deployed()
    return [f"instance of launch {one}" for one in await backend.owned()]


async def stop_alone(settings: Settings) -> list[LaunchId]:
    """Stop every launch of this deployment while no proxy runs; return them.

    Launches on record are stopped even if the cloud does not list them; stopped
    instances stay. The next proxy sees each of them gone. Raises `BackendError` after
    all were tried if one stays.
    """
    stopped: list[LaunchId] = []
    problem: BackendError | None = None
    async with opened_alone(settings) as (store, _, backends):
        on_record = {name: _launches_of(store, name) for name in backends}
        known = {one for launches in on_record.values() for one in launches}
        for name, backend in backends.items():
            try:
                listed = {one for one in await backend.owned() if is_launch(one)}
            except BackendError as error:
                problem, listed = error, set()
            found = sorted((listed - known) | on_record[name])
            for launch_id in found:
                try:
                    await until_gone(backend, launch_id)
                except BackendError as error:
                    problem = error
                else:
                    store.forget([launch_id])
                    stopped.append(launch_id)
    if problem is not None:
        raise problem
    return stopped


async def sweep_alone(
    settings: Settings,
    *,
    dry_run: bool,
    stopped: bool = False,
    timing: Timing = STANDARD,
) -> dict[str, Any]:
    """Sweep without a running proxy; if ``stopped``, stopped instances too.

    Every offer is swept, whatever fails with another: see `Trying`.
    """
    found: list[str] = []
    kept: list[str] = []
    async with opened_alone(settings) as (store, _, backends):
        now, trying = this_machine().wall(), Trying(len(backends))
        for name, backend in backends.items():
            with trying.offer(name):
                found += await sweep(backend, store, now=now, dry_run=dry_run)
                if stopped and isinstance(backend, SupportsRelease):
                    found += await backend.release(dry_run=dry_run)
                left = [] if dry_run else await _tidied(backend, timing.tidy_pause_s)
                if isinstance(backend, SupportsIdleCosts):
                    kept += await backend.kept()
                kept += left
    return {"swept": found, "kept": kept, "dry_run": dry_run} | trying.told()
