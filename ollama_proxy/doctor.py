"""Examine a deployment without serving: for ``check`` and a ``sweep`` alone."""

import tempfile
from pathlib import Path
from typing import Any

from ollama_proxy.app import open_backend
from ollama_proxy.backend import Backend, Checkable, Finding, Leased, Tidied
from ollama_proxy.clock import SystemClock
from ollama_proxy.errors import BackendError, StartupError
from ollama_proxy.pool import sweep
from ollama_proxy.server import bind
from ollama_proxy.settings import Settings, backend_name
from ollama_proxy.store import Store


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
    try:
        findings.append(
            Finding("state folder", ok=True, detail=str(settings.state_dir))
        )
        backend = open_backend(settings, store, SystemClock())
        try:
            findings += await _backend(backend)
        finally:
            await backend.aclose()
    finally:
        store.close()
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


async def sweep_expired(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Delete what no proxy has wanted for a lease's length, with no state at all."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        try:
            alone = settings.model_copy(update={"state_dir": Path(folder)})
            backend = open_backend(alone, store, SystemClock())
            try:
                if not isinstance(backend, Leased):
                    name = backend_name(settings)
                    message = f"the backend {name!r} has no leases that could expire"
                    raise StartupError(message)
                found = await backend.sweep_expired(dry_run=dry_run)
            finally:
                await backend.aclose()
        finally:
            store.close()
    return {"swept": found, "dry_run": dry_run}


async def sweep_alone(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Sweep while no proxy runs on this state folder."""
    store = Store(settings.state_dir)
    try:
        backend = open_backend(settings, store, SystemClock())
        try:
            found = await sweep(backend, store, dry_run=dry_run)
            if not dry_run and isinstance(backend, Tidied):
                await backend.tidy()
        finally:
            await backend.aclose()
    finally:
        store.close()
    return {"swept": found, "dry_run": dry_run}
