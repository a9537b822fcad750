"""From the name of a backend to the function that builds it."""

from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import cast

from ollama_proxy.base.errors import SettingsError, StartupError
from ollama_proxy.fleet.backend import BackendFactory

GROUP = "ollama_proxy.backends"

_BUILT_IN = {
    "exoscale": "ollama_proxy.backends.exoscale.backend",
    "fly": "ollama_proxy.backends.fly.backend",
    "ovh": "ollama_proxy.backends.ovh.backend",
    "local": "ollama_proxy.backends.local",
    "static": "ollama_proxy.backends.static",
}

_WITH_EXTRA = frozenset({"exoscale", "fly", "ovh"})
"""Backends whose libraries an extra of the same name installs, and nothing else."""


def known_backends() -> list[str]:
    """Return every name that `load_backend` takes, sorted."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def load_backend(name: str) -> BackendFactory:
    """Return the factory called ``name``: a built-in one, else a plug-in.

    A module that fails to import says so: a broken backend is not a missing one.
    """
    if name in _BUILT_IN:
        return cast("BackendFactory", _built_in(name).open_backend)
    for point in entry_points(group=GROUP, name=name):
        return cast("BackendFactory", point.load())
    known = ", ".join(known_backends())
    raise SettingsError(
        [
            f"OLLAMA_PROXY_BACKEND, OLLAMA_PROXY_DEFAULT_BACKEND: no backend {name!r};"
            f" known: {known}"
        ]
    )


def _built_in(name: str) -> ModuleType:
    """Return the module of a backend; what it needs may not be installed."""
    try:
        return import_module(_BUILT_IN[name])
    except ModuleNotFoundError as error:
        lacking = (error.name or "").partition(".")[0]
        if name not in _WITH_EXTRA or lacking in {"", "ollama_proxy"}:
            raise
        raise StartupError(
            f"OLLAMA_PROXY_BACKEND: the backend {name!r} needs {lacking!r}, which is"
            f" not installed; run: pip install 'ollama-proxy[{name}]'"
        ) from error
