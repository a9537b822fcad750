"""Examine a deployment without serving: for ``check`` and a ``sweep`` alone."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any

from ollama_proxy.app import open_backend
from ollama_proxy.backend import (
    Backend,
    Checkable,
    Deployable,
    Finding,
    Leased,
    Phase,
    Tidied,
)
from ollama_proxy.catalogue import sizes_of
from ollama_proxy.clock import SystemClock
from ollama_proxy.errors import BackendError, StartupError, TransientError
from ollama_proxy.pool import sweep
from ollama_proxy.record import LaunchId
from ollama_proxy.routing import full_model_name
from ollama_proxy.server import bind
from ollama_proxy.settings import Settings, backend_name
from ollama_proxy.store import Store

_STOP_LIMIT_S = 900.0
_SYSTEM_GIB = 20
"""What driver, Docker and image take on an instance."""


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything that `serve` would need; create nothing that costs."""
    findings = [
        Finding("settings", ok=True, detail=f"backend {backend_name(settings)!r}"),
        _address(settings),
    ]
    try:
        store = Store(settings.state_dir)
    except StartupError as error:
        return [*findings, Finding("state folder", ok=False, detail=str(error))]
    findings.append(Finding("state folder", ok=True, detail=str(settings.state_dir)))
    with closing(store):
        async with aclosing(open_backend(settings, store, SystemClock())) as backend:
            findings += await _backend(backend)
            findings += _disk(settings, backend, sizes_of(store.catalogue()))
    return findings


def _address(settings: Settings) -> Finding:
    try:
        bind(settings.listen).close()
    except StartupError as error:
        return Finding("address", ok=False, detail=str(error))
    return Finding("address", ok=True, detail=settings.listen.url)


async def _backend(backend: Backend) -> list[Finding]:
    try:
        owned = await backend.owned()
        found = await backend.check() if isinstance(backend, Checkable) else []
    except BackendError as error:
        return [Finding("backend", ok=False, detail=str(error))]
    return [*found, Finding("instances of ours", ok=True, detail=str(len(owned)))]


def _disk(
    settings: Settings, backend: Backend, sizes: Mapping[str, int]
) -> list[Finding]:
    """Compare the disk with the models, as far as an instance told their sizes."""
    disk_gib = backend.traits.disk_gib
    if disk_gib is None or not settings.models:
        return []
    names = [full_model_name(name) for name in settings.models]
    models_gib = sum(sizes.get(name, 0) for name in names) / (1 << 30)
    unknown = [name for name in names if not sizes.get(name)]
    fits = models_gib + _SYSTEM_GIB <= disk_gib
    told = f"models {models_gib:.1f} GiB, system about {_SYSTEM_GIB}, disk {disk_gib}"
    if unknown:
        told += f"; not known before an instance has had them: {', '.join(unknown)}"
    return [Finding("disk and models", ok=fits, detail=told)]


async def sweep_expired(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Delete what no proxy has wanted for a lease's length, with no state at all."""
    with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder))) as store:
        alone = settings.model_copy(update={"state_dir": Path(folder)})
        async with aclosing(open_backend(alone, store, SystemClock())) as backend:
            if not isinstance(backend, Leased):
                name = backend_name(settings)
                message = f"the backend {name!r} has no leases that could expire"
                raise StartupError(message)
            found = await backend.sweep_expired(dry_run=dry_run)
    return {"swept": found, "dry_run": dry_run}


async def set_up(settings: Settings, image: str | None) -> AsyncIterator[str]:
    """Deploy an image, or remove everything if there is none; tell each step.

    Raises `StartupError` while a proxy runs on the state folder.
    """
    with closing(Store(settings.state_dir)) as store:
        async with aclosing(open_backend(settings, store, SystemClock())) as backend:
            if not isinstance(backend, Deployable):
                name = backend_name(settings)
                raise StartupError(f"the backend {name!r} has nothing to be deployed")
            steps = backend.remove() if image is None else backend.deploy(image)
            async for step in steps:
                yield step


async def look_alone(settings: Settings) -> list[str]:
    """Return what there is of this deployment while no proxy runs, in words."""
    with closing(Store(settings.state_dir)) as store:
        async with aclosing(open_backend(settings, store, SystemClock())) as backend:
            if isinstance(backend, Deployable):
                return await backend.deployed()
            return [f"instance of launch {name}" for name in await backend.owned()]


async def stop_alone(settings: Settings) -> list[LaunchId]:
    """Stop every instance of this deployment while no proxy runs; return them.

    The next proxy sees each of them gone. Raises `BackendError` if one does not go.
    """
    with closing(Store(settings.state_dir)) as store:
        async with aclosing(open_backend(settings, store, SystemClock())) as backend:
            found = sorted(await backend.owned())
            for launch_id in found:
                await _until_gone(backend, launch_id)
    return found


async def _until_gone(backend: Backend, launch_id: LaunchId) -> None:
    """Stop an instance until it is seen to be gone."""
    try:
        async with asyncio.timeout(_STOP_LIMIT_S):
            while True:
                with suppress(TransientError):
                    await backend.stop(launch_id)
                    if (await backend.inspect(launch_id)).phase is Phase.GONE:
                        return
                await asyncio.sleep(backend.traits.poll_s)
    except TimeoutError:
        raise TransientError(
            f"the instance of launch {launch_id} is still there after"
            f" {_STOP_LIMIT_S:.0f} s and may cost money; look into the cloud's portal"
        ) from None


async def sweep_alone(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Sweep while no proxy runs on this state folder."""
    with closing(Store(settings.state_dir)) as store:
        async with aclosing(open_backend(settings, store, SystemClock())) as backend:
            found = await sweep(backend, store, dry_run=dry_run)
            if not dry_run and isinstance(backend, Tidied):
                await backend.tidy()
    return {"swept": found, "dry_run": dry_run}
