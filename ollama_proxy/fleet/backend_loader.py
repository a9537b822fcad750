"""Find the backends that there are: built-in ones and plug-ins, by the same door."""

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from ollama_proxy.base.errors import SettingsError, StartupError
from ollama_proxy.base.fields import BackendSettings, environment_names
from ollama_proxy.fleet.backend import BackendFactory
from ollama_proxy.fleet.backend_plugin import BackendPlugin

GROUP = "ollama_proxy.backends"

_PACKAGE = "ollama_proxy.backends"
_OF_ONE_MODULE = ("static", "local", "hub")
"""Built-in backends that are a module and no folder."""

Plugin = BackendPlugin[Any]


class NoSettings(BackendSettings):
    """Holds the settings of a plug-in that is a function: ``[backend_options]``."""


@dataclass(frozen=True, slots=True)
class Backends:
    """Holds every backend by name: built-in ones, then plug-ins, each sorted.

    ``broken``: plug-ins that can't be used, each with the error that explains why. It
    is raised when that plug-in is selected and does not affect the others.
    """

    plugins: Mapping[str, Plugin]
    broken: Mapping[str, StartupError] = field(default_factory=dict)

    def get(self, name: str) -> Plugin:
        """Return a backend. Raises `StartupError` if it does not exist."""
        if name in self.broken:
            raise self.broken[name]
        if name in self.plugins:
            return self.plugins[name]
        known = ", ".join(sorted({*self.plugins, *self.broken}))
        raise SettingsError(
            [
                "OLLAMA_PROXY_BACKEND, OLLAMA_PROXY_DEFAULT_BACKEND: no backend"
                f" {name!r}; known: {known}"
            ]
        )


def find_backends() -> Backends:
    """Return every backend that is installed.

    Plug-ins are imported, because only the imported module shows which settings and
    variables it reads. A plug-in can't replace a built-in of the same name.
    """
    plugins = dict(built_in_backends())
    broken: dict[str, StartupError] = {}
    for point in sorted(installed_plug_ins(), key=lambda point: point.name):
        if point.name in plugins or point.name in broken:
            continue
        try:
            plugins[point.name] = _checked(_load(point), plugins)
        except StartupError as error:
            broken[point.name] = error
        except Exception as error:
            broken[point.name] = StartupError(
                f"OLLAMA_PROXY_BACKEND: the backend {point.name!r} can't be loaded from"
                f" {point.value} ({type(error).__name__}: {error}); mend or remove it"
            )
    return Backends(plugins, broken)


@cache
def installed_plug_ins() -> tuple[EntryPoint, ...]:
    """Return the entry points of plug-ins, read once: it takes 30 ms."""
    return tuple(entry_points(group=GROUP))


@cache
def built_in_backends() -> Mapping[str, Plugin]:
    """Return the backends that come with the proxy: no list of them has to be kept."""
    modules = [f"{_PACKAGE}.{name}" for name in _OF_ONE_MODULE]
    found = [import_module(module).PLUGIN for module in (*modules, *_in_folders())]
    return {plugin.name: plugin for plugin in found}


def _in_folders() -> Iterator[str]:
    """Yield the modules called ``plugin`` in the folders of `ollama_proxy.backends`."""
    folders = pkgutil.iter_modules(import_module(_PACKAGE).__path__)
    for name in sorted(one.name for one in folders if one.ispkg):
        if find_spec(module := f"{_PACKAGE}.{name}.plugin") is not None:
            yield module


def _load(point: EntryPoint) -> Plugin:
    """Return what an entry point names; a function gets no settings of its own."""
    loaded = point.load()
    if not isinstance(loaded, BackendPlugin):
        return BackendPlugin(point.name, NoSettings, loaded, has_table=False)
    if loaded.name != point.name:
        raise StartupError(
            f"OLLAMA_PROXY_BACKEND: the entry point {point.name!r} names a backend that"
            f" calls itself {loaded.name!r}; both names have to be the same"
        )
    return loaded


def _checked(plugin: Plugin, others: Mapping[str, Plugin]) -> Plugin:
    """Return a plug-in. Raises `StartupError` if it reads what belongs to another."""
    taken = {
        variable: name
        for name, other in others.items()
        for variable in variables_of(other)
    }
    for variable in variables_of(plugin):
        if variable in taken:
            raise StartupError(
                f"OLLAMA_PROXY_BACKEND: the backend {plugin.name!r} reads {variable},"
                f" which is a setting of {taken[variable]!r}; choose another name"
            )
    return plugin


def variables_of(plugin: Plugin) -> list[str]:
    """Return the environment variables that a backend's settings are read from."""
    fields = plugin.settings.model_fields.values()
    return [name for one in fields for name in environment_names(one)]


def load_backend(name: str) -> BackendFactory:
    """Return the function that builds the backend called ``name``.

    If its module fails to import, the error says so: a broken backend is not reported
    as missing.
    """
    return find_backends().get(name).open
