"""Examine a deployment without serving: for ``check`` and a ``sweep`` alone."""

import tempfile
from collections.abc import Mapping
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

from ollama_proxy.app import open_backend
from ollama_proxy.backend import Backend, Checkable, Finding, Leased, Tidied
from ollama_proxy.catalogue import sizes_of
from ollama_proxy.clock import SystemClock
from ollama_proxy.errors import BackendError, StartupError
from ollama_proxy.pool import sweep
from ollama_proxy.routing import full_model_name
from ollama_proxy.server import bind
from ollama_proxy.settings import Settings, backend_name
from ollama_proxy.store import Store

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


async def sweep_alone(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Sweep while no proxy runs on this state folder."""
    with closing(Store(settings.state_dir)) as store:
        async with aclosing(open_backend(settings, store, SystemClock())) as backend:
            found = await sweep(backend, store, dry_run=dry_run)
            if not dry_run and isinstance(backend, Tidied):
                await backend.tidy()
    return {"swept": found, "dry_run": dry_run}
