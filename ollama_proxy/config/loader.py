"""Read every setting once: from the environment, else from one TOML file.

All faults are reported at once. The environment has priority over the file. Names from
Ollama and from the proxy's forerunners keep working.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError as PydanticValidationError

from ollama_proxy.base.environment import without_quotes
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.base.fields import (
    OWN_PREFIX,
    environment_names,
)
from ollama_proxy.config.fault_words import by_line, guess, sentences
from ollama_proxy.config.former_settings import (
    Renamed,
    present_keys,
    present_variable,
)
from ollama_proxy.config.hub_offers import hub_faults, hub_notices, is_hub_on
from ollama_proxy.config.known_settings import (
    all_backends,
    every_setting,
    file_keys,
    tables,
    variables_by_group,
)
from ollama_proxy.config.offer_reading import OfferReader
from ollama_proxy.config.pool_loading import (
    PoolTables,
    first_settings,
    taken_tables,
    with_pools,
)
from ollama_proxy.config.pools import OfferSpec
from ollama_proxy.config.selection import (
    Selection,
    gather_evidence,
    select_backend,
    select_beside_house,
)
from ollama_proxy.config.service_links import without_service_links
from ollama_proxy.config.setting_names import check_names
from ollama_proxy.config.settings import Read, Settings
from ollama_proxy.config.toml_lines import FilePlaces, find_lines
from ollama_proxy.fleet.backend_loader import Backends, Plugin
from ollama_proxy.fleet.backend_plugin import Choice

_FILE = "ollama-proxy.toml"


@dataclass(frozen=True, slots=True)
class _Found:
    """Holds settings as found, not validated yet: values by name, tables as mappings.

    ``origin``: where each value is set, for people. ``in_file``: names that the
    settings file has. ``renamed``: a sentence for each setting that is set by a former
    name. ``pools``: its tables of pools and offers.
    """

    values: dict[str, Any]
    origin: dict[str, str]
    in_file: frozenset[str]
    renamed: tuple[str, ...]
    pools: PoolTables


def load_settings(env: Mapping[str, str], file: Path | None = None) -> Settings:
    """Read the settings, or raise `SettingsError` with every fault.

    ``file``: the TOML file; if None, ``./ollama-proxy.toml`` if it exists.
    """
    backends, faults = all_backends(), list[str]()
    env = without_quotes(without_service_links(env))
    found = _find(env, file, backends, faults)
    evidence = gather_evidence(
        found.values, found.origin, backends.plugins, found.in_file
    )
    select = select_beside_house if is_hub_on(found.values) else select_backend
    selection = found.pools.selection(backends) or select(evidence)
    selection, wrong = check_names(
        selection,
        found.values,
        found.origin,
        tables(backends),
        variables_by_group(backends),
        [name for name, text in env.items() if text],
    )
    faults += wrong
    wanted = {selection.backend, *found.in_file} & backends.broken.keys()
    faults += [str(backends.broken[name]) for name in sorted(wanted)]
    reader = OfferReader(backends, found.values, found.origin, found.pools.places)
    offers = reader.read_all(found.pools.offers)
    settings = _validated(found, selection, backends, faults, offers)
    if settings is not None:
        if not found.pools.offers:
            faults += _contradictions(settings, backends)
        settings = with_pools(settings, found.pools, offers, reader)
        faults += hub_faults(settings)
        settings = settings.noting(hub_notices(settings, evidence.beside))
    else:  # the pools are read all the same: every fault is reported at once
        plain = Settings.model_validate({}, context=Read(selection))
        with_pools(plain, found.pools, offers, reader)
    faults += by_line(reader.faults)
    if faults or settings is None:
        raise SettingsError(faults)
    return settings


def recall_offer(
    env: Mapping[str, str],
    file: Path | None,
    name: str,
    backend: str,
    noted: Mapping[str, object],
) -> OfferSpec:
    """Return an offer that the settings no longer have, from what was noted of it.

    Its secrets are those of the backend's own table and variables. Raises
    `SettingsError` if there are none.
    """
    backends, faults = all_backends(), list[str]()
    found = _find(without_quotes(without_service_links(env)), file, backends, faults)
    reader = OfferReader(backends, found.values, found.origin, found.pools.places)
    offer = reader.recall(name, backend, noted)
    if offer is None or reader.faults:
        raise SettingsError(reader.faults)
    return offer


def _find(
    env: Mapping[str, str], file: Path | None, backends: Backends, faults: list[str]
) -> _Found:
    """Return what the file and the environment have; the latter wins."""
    told = Renamed()
    values, origin, in_file, places = _read_file(file, backends, told, faults)
    pools = taken_tables(values, places, faults)
    for name, (text, variable) in _read_environment(
        env, backends, told, faults
    ).items():
        group, _, key = name.rpartition(".")
        table = values.setdefault(group, {}) if group else values
        if isinstance(table, dict):
            table[key] = text
            origin[name] = variable
    for key in ("backend", "default_backend"):
        if isinstance(values.get(key), str):
            values[key] = str(values[key]).strip().lower()
    faults += told.faults
    return _Found(values, origin, in_file, tuple(told.notices), pools)


def _read_file(
    file: Path | None, backends: Backends, told: Renamed, faults: list[str]
) -> tuple[dict[str, Any], dict[str, str], frozenset[str], FilePlaces]:
    """Return values and their places by present names, every name in it, and lines."""
    path = file if file is not None else Path(_FILE)
    if file is None and not _is_there(path):
        return {}, {}, frozenset(), FilePlaces()
    try:
        text = path.read_text("utf-8")
        values = tomllib.loads(text)
    except (OSError, ValueError) as error:
        faults.append(f"{path}: the settings file can't be read: {error}")
        return {}, {}, frozenset(), FilePlaces()
    found = present_keys(values, every_setting(backends), told)
    known = file_keys(backends)
    for key in sorted(set(found) - set(known)):
        if key not in backends.broken:
            faults.append(f"{path}: unknown setting {key!r}{guess(key, known)}")
        del found[key]
    present = {name: value for name, (_, value) in found.items()}
    origin = {name: f"{path}: {key}" for name, (key, _) in found.items()}
    places = FilePlaces(str(path), find_lines(text))
    return present, origin, frozenset(values), places


def _is_there(path: Path) -> bool:
    """Tell whether a file is there; not if its folder may not even be searched."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _read_environment(
    env: Mapping[str, str], backends: Backends, told: Renamed, faults: list[str]
) -> dict[str, tuple[str, str]]:
    """Return the settings that the environment has, and from which variable."""
    found: dict[str, tuple[str, str]] = {}
    known: set[str] = set()
    for name, field in every_setting(backends).items():
        variables = environment_names(field)
        known.update(variables)
        given = [
            (variable, env[variable]) for variable in variables if env.get(variable)
        ]
        given = present_variable(field, given, told)
        if name == "models" and given:
            found[name] = (",".join(text for _, text in given), given[0][0])
        elif given:
            found[name] = (given[0][1], given[0][0])
    for variable in sorted(env):
        if variable.startswith(OWN_PREFIX) and variable not in known:
            likely = guess(variable, sorted(known))
            faults.append(f"{variable}: unknown setting{likely}")
    return found


def _validated(
    found: _Found,
    selection: Selection,
    backends: Backends,
    faults: list[str],
    offers: Mapping[str, OfferSpec],
) -> Settings | None:
    """Return the settings; None, and sentences in ``faults``, if a value is wrong.

    A backend's table is validated only if that backend may be selected; with offers it
    is a part of each of them.
    """
    values = dict(found.values)
    given = {
        name: _values_of(plugin, values)
        for name, plugin in backends.plugins.items()
        if not plugin.has_table or name in selection.meant
    }
    later: list[str] = []
    groups = first_settings(offers)
    every = every_setting(backends)
    for name, own in ({} if found.pools.offers else given).items():
        plugin = backends.plugins[name]
        prefix = f"{name}." if plugin.has_table else ""
        try:
            groups[name] = plugin.settings.model_validate(own)
        except PydanticValidationError as error:
            later += sentences(error, prefix, found.origin, every)
    settings, read = None, Read(selection, groups, found.renamed)
    try:
        settings = Settings.model_validate(values, context=read)
    except PydanticValidationError as error:
        faults += sentences(error, "", found.origin, every)
    faults += later
    return None if later else settings


def _values_of(plugin: Plugin, values: dict[str, Any]) -> object:
    """Remove the settings of a backend from ``values`` and return them."""
    if plugin.has_table:
        return values.pop(plugin.name, {})
    fields = plugin.settings.model_fields
    return {key: values.pop(key) for key in fields if key in values}


def _contradictions(settings: Settings, backends: Backends) -> list[str]:
    """Return conflicts between settings that are valid one by one."""
    selection, faults = settings.selection, list[str]()
    if selection.rivals:
        meant = " and ".join(selection.meant)
        faults.append(
            f"OLLAMA_PROXY_BACKEND: there are settings for {meant};"
            " name the one that is meant"
        )
    choice = Choice(selection.backend, settings.backend, settings.models)
    for name, own in sorted(
        settings.of_backends.items(), key=lambda one: one[0] != selection.backend
    ):
        plugin = backends.plugins[name]
        if name == selection.backend or not plugin.has_table:
            faults += plugin.faults(own, choice)
    return faults
