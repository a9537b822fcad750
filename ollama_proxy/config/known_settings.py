"""List every setting: the proxy's own, and those of each backend."""

from collections.abc import Iterator, Mapping

from pydantic.fields import FieldInfo

from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.fields import environment_names
from ollama_proxy.config.access_settings import AccessSettings
from ollama_proxy.config.hub_settings import HubSettings
from ollama_proxy.config.selection import Groups
from ollama_proxy.config.settings import Settings
from ollama_proxy.fleet.backend_loader import (
    Backends,
    find_backends,
    variables_of,
)

_BEFORE_BACKENDS = "default_backend"
"""The settings of backends that have no table follow this one where all are listed."""

_LAST = "backend_options"

POOL_TABLES = ("offers", "pools")
"""The tables of tables at the top of the settings file."""


def all_backends() -> Backends:
    """Return every installed backend, with the errors of those that can't be used.

    A plug-in must neither have the name of a setting of the proxy nor read its
    variables.
    """
    found = find_backends()
    own = {
        variable: name
        for name, field in Settings.model_fields.items()
        for variable in environment_names(field)
    }
    plugins, broken = dict(found.plugins), dict(found.broken)
    for name, plugin in found.plugins.items():
        taken = next((one for one in variables_of(plugin) if one in own), None)
        if plugin.has_table and name in {*Settings.model_fields, *POOL_TABLES}:
            taken = taken or name
        if taken is not None:
            del plugins[name]
            broken[name] = StartupError(
                f"OLLAMA_PROXY_BACKEND: the backend {name!r} can't be used: {taken!r}"
                " is a setting of the proxy; its author has to choose another name"
            )
    return Backends(plugins, broken)


def every_setting(backends: Backends | None = None) -> dict[str, FieldInfo]:
    """Return each setting by its name; those of a table as ``table.name``.

    In the order of the tables in the docs.
    """
    plugins = (backends or all_backends()).plugins.values()
    found: dict[str, FieldInfo] = {}
    last = AccessSettings.model_fields | HubSettings.model_fields
    others = {k: v for k, v in Settings.model_fields.items() if k not in last}
    for name, field in (others | last).items():
        found[name] = field
        if name == _BEFORE_BACKENDS:
            for plugin in plugins:
                found |= {} if plugin.has_table else plugin.settings.model_fields
    for plugin in plugins:
        if plugin.has_table:
            for key, field in plugin.settings.model_fields.items():
                found[f"{plugin.name}.{key}"] = field
    return found | {_LAST: found.pop(_LAST)}


def file_keys(backends: Backends) -> list[str]:
    """Return what may stand at the top of the settings file, sorted."""
    names = {name.partition(".")[0] for name in every_setting(backends)}
    return sorted(names.union(POOL_TABLES))


def tables(backends: Backends) -> Groups:
    """Return the settings of each backend that has a table, by its name."""
    plugins = backends.plugins.items()
    return {name: one.settings for name, one in plugins if one.has_table}


def variables_by_group(backends: Backends) -> dict[str, list[str]]:
    """Return every environment variable that is read, by table; "" has the rest.

    ``EXOSCALE_IDLE_TIMEOUT``, an older name of a setting of the proxy, is listed under
    Exoscale.
    """
    prefixes = {f"{table.upper()}_": table for table in tables(backends)}
    found: dict[str, list[str]] = {}
    for variable, name in _variables(every_setting(backends)):
        table = name.rpartition(".")[0]
        word = variable.partition("_")[0] + "_"
        found.setdefault(table or prefixes.get(word, ""), []).append(variable)
    return found


def _variables(settings: Mapping[str, FieldInfo]) -> Iterator[tuple[str, str]]:
    for name, field in settings.items():
        for variable in environment_names(field):
            yield variable, name
