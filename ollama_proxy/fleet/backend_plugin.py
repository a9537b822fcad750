"""Describe a backend, built in or from a plug-in, to the proxy.

A built-in has a `BackendPlugin` called ``PLUGIN``; an entry point of the group
``ollama_proxy.backends`` names one, or just a function that builds a backend.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.fields import BackendSettings, is_given
from ollama_proxy.fleet.backend import Backend, BackendContext, BackendFactory

S = TypeVar("S", bound=BackendSettings)


@dataclass(frozen=True, slots=True)
class Choice:
    """Says which backend is used, and what else of the settings bears on its faults.

    ``named`` is what ``OLLAMA_PROXY_BACKEND`` says, empty if nothing;
    ``models`` are those that have to be there before an instance is ready.
    """

    backend: str
    named: str = ""
    models: tuple[str, ...] = ()


def complete_credentials(
    kind: type[BackendSettings], given: Mapping[str, Any]
) -> Sequence[str]:
    """Return the first complete set of `BackendSettings.credentials`; else nothing."""
    for keys in kind.credentials:
        if all(is_given(given, key) for key in keys):
            return keys
    return ()


def own_faults(settings: BackendSettings, _choice: Choice) -> Sequence[str]:
    """Return what the settings find wrong by themselves."""
    return settings.faults()


@dataclass(frozen=True, slots=True)
class BackendPlugin(Generic[S]):
    """Holds everything that the proxy has to know of a backend.

    ``name`` selects it, and is that of its table in the settings file. ``settings`` is
    the model of that table, with the environment variables of its own. ``open`` builds
    the backend, whose settings are ``context.settings_of(…)``; what is costly to import
    is imported there. ``is_meant`` gets the class and what is set, not validated yet,
    and returns the names of the settings that say the backend is meant although nobody
    named it; none: it is not. ``faults`` tells what is wrong between settings that are
    right one by one, each in a sentence that begins with the variable's name.

    ``has_table``: False for `local` and `static`, whose settings stand beside the
    proxy's own: these mean the backend as its name does, and their faults are told
    whichever backend is used.
    """

    name: str
    settings: type[S]
    open: BackendFactory
    is_meant: Callable[[type[BackendSettings], Mapping[str, Any]], Sequence[str]] = (
        complete_credentials
    )
    faults: Callable[[S, Choice], Sequence[str]] = own_faults
    has_table: bool = True


def opened_by(
    module: str, *, extra: str = "", libraries: Sequence[str] = ()
) -> BackendFactory:
    """Return a factory that imports ``module`` first and calls its ``open_backend``.

    ``extra`` is the one of ours that installs what it needs; ``libraries`` are those
    of it that are imported later, or never. If one is missing, `StartupError` is
    raised; a module that fails to import for any other reason says so itself.
    """

    def open_backend(context: BackendContext) -> Backend:
        try:
            found = import_module(module)
            for library in libraries:
                _refuse_missing(library)
        except ModuleNotFoundError as error:
            lacking = (error.name or "").partition(".")[0]
            if not extra or lacking in {"", "ollama_proxy"}:
                raise
            raise StartupError(
                f"OLLAMA_PROXY_BACKEND: the backend {extra!r} needs {lacking!r}, which"
                f" is not installed; run: pip install 'ollama-proxy[{extra}]'"
            ) from error
        backend: Backend = found.open_backend(context)
        return backend

    return open_backend


def _refuse_missing(library: str) -> None:
    if find_spec(library) is None:
        raise ModuleNotFoundError(name=library)
