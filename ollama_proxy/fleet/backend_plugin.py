"""Describe a backend, built in or from a plug-in, to the proxy.

A built-in has a `BackendPlugin` called ``PLUGIN``. An entry point of the group
``ollama_proxy.backends`` names a `BackendPlugin`, or just a function that builds a
backend.
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
    """Names the selected backend, and other settings that its checks need.

    ``named``: the value of ``OLLAMA_PROXY_BACKEND``, empty if unset. ``models``: must
    be present before an instance is ready.
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


def no_names(_settings: BackendSettings) -> Mapping[str, str]:
    """Return that two offers of a backend share nothing by a name of the settings."""
    return {}


@dataclass(frozen=True, slots=True)
class BackendPlugin(Generic[S]):
    """Holds everything that the proxy needs to know about a backend.

    - ``name``: selects it, and names its table in the settings file.
    - ``settings``: the model of that table, with its own environment variables.
    - ``open``: builds the backend, whose settings are ``context.settings_of(…)``.
      Costly imports belong here.
    - ``is_meant``: gets the settings class and the given values, not yet validated, and
      returns the names of the settings that select this backend when none is named.
      Empty: this backend is not selected.
    - ``faults``: returns conflicts between settings that are valid one by one, each as
      a sentence that begins with the variable's name.
    - ``has_table``: False for `local` and `static`, whose settings stand beside the
      proxy's own. These select the backend just as its name does, and their faults are
      reported whichever backend is used.
    - ``resource_names``: things in the cloud that belong to one offer alone, and that
      its settings name, in words, each with its setting: ``{"app 'mine'": "app"}``.
    - ``makes_instances``: False if somebody else set its servers up, so that their
      Ollama can't be configured.
    - ``inherits_environment``: its instances get the variables of the proxy's process.
    """

    name: str
    settings: type[S]
    open: BackendFactory
    is_meant: Callable[[type[BackendSettings], Mapping[str, Any]], Sequence[str]] = (
        complete_credentials
    )
    faults: Callable[[S, Choice], Sequence[str]] = own_faults
    has_table: bool = True
    resource_names: Callable[[S], Mapping[str, str]] = no_names
    makes_instances: bool = True
    inherits_environment: bool = False


def opened_by(
    module: str, *, extra: str = "", libraries: Sequence[str] = ()
) -> BackendFactory:
    """Return a factory that imports ``module`` first and calls its ``open_backend``.

    ``extra``: our pip extra that installs its dependencies. ``libraries``: dependencies
    that are imported later or never. Raises `StartupError` if one is missing. A module
    that fails to import for any other reason raises its own error.
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
