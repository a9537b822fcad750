"""Read the tables ``[offers.NAME]``: a backend, and its settings for these instances.

What such a table does not say is taken from the backend's own table and variables, so
that credentials are written once. Of settings that belong together, such as the two
halves of a key, all are taken from one of the two.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ollama_proxy.base.fields import BackendSettings, environment_names
from ollama_proxy.config.fault_words import guess, sentences, validated
from ollama_proxy.config.ollama_variables import checked_variables
from ollama_proxy.config.pool_tables import OfferTable, PoolTable
from ollama_proxy.config.pools import OfferSpec
from ollama_proxy.config.selection import place_of, table_of
from ollama_proxy.config.setting_names import half_pairs
from ollama_proxy.config.toml_lines import FilePlaces
from ollama_proxy.fleet.backend_loader import Backends, Plugin
from ollama_proxy.fleet.backend_plugin import Choice

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")
_PRICE = "price_per_hour"


def tables_of(
    kind: str, given: object, places: FilePlaces, faults: list[str]
) -> dict[str, Mapping[str, Any]]:
    """Return the tables ``[kind.NAME]`` by name; without those that are none."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        faults.append(
            f"{places.place(kind)}: this is no table of tables; write [{kind}.NAME]"
        )
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for name, table in given.items():
        place = places.place(kind, name)
        if not isinstance(table, Mapping):
            faults.append(f"{place}: this is no table; write [{kind}.{name}]")
        elif not _NAME.fullmatch(name):
            faults.append(
                f"{place}: {name!r} is no name for one; write up to 40 letters, digits,"
                " - and _"
            )
        else:
            found[name] = table
    return found


def backends_of(offers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the backend that each offer names, by the offer, in the file's order."""
    named = ((name, table.get("backend")) for name, table in offers.items())
    return {
        name: backend.strip().lower()
        for name, backend in named
        if isinstance(backend, str) and backend.strip()
    }


@dataclass(slots=True)
class OfferReader:
    """Reads offers; what is wrong is added to ``faults``, a sentence each.

    ``values`` and ``origin`` are what the backends' own tables and variables say, and
    where it stands.
    """

    backends: Backends
    values: Mapping[str, Any]
    origin: Mapping[str, str]
    places: FilePlaces
    faults: list[str] = field(default_factory=list)

    def read_all(self, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, OfferSpec]:
        """Return every offer that is right by itself, in the file's order."""
        read = {name: self.read(name, table) for name, table in tables.items()}
        return {name: offer for name, offer in read.items() if offer is not None}

    def read(self, name: str, table: Mapping[str, Any]) -> OfferSpec | None:
        """Return an offer; None if it lacks a backend, or a value of it is wrong."""
        plugin = self._plugin_of(name, table)
        if plugin is None or not _takes_anything(plugin):
            table = self._without_unknown(name, table, plugin)
        said = {key: table[key] for key in table if key in OfferTable.model_fields}
        own = {key: table[key] for key in table if key not in said}
        env = self._env(name, said.pop("env", {}), plugin)
        stated = validated(
            OfferTable,
            said,
            f"offers.{name}.",
            self.places.of_keys(said, "offers", name),
            self.faults,
        )
        if plugin is None:
            return None
        self._refuse_name(name, plugin)
        if stated.price_per_hour is not None and _PRICE in plugin.settings.model_fields:
            own[_PRICE] = stated.price_per_hour
        settings = self._settings(name, plugin, own)
        if settings is None:
            return None
        price = stated.price_per_hour
        return OfferSpec(
            name,
            plugin.name,
            settings,
            slots=stated.slots,
            price_per_hour=getattr(settings, _PRICE, None) if price is None else price,
            currency=stated.currency,
            env=env,
            options=self._options(plugin, own),
            place=self.places.place("offers", name),
        )

    def _env(self, name: str, given: object, plugin: Plugin | None) -> dict[str, str]:
        wrong: list[tuple[str, str]] = []
        env = checked_variables(given, wrong)
        for key, why in wrong:
            path = ("offers", name, "env", *([key] if key else []))
            self.faults.append(f"{self.places.place(*path)}: {why}")
        if given and plugin is not None and not plugin.makes_instances:
            self.faults.append(
                f"{self.places.place('offers', name, 'env')}: the backend"
                f" {plugin.name!r} makes no instances; set these variables where its"
                " server is started"
            )
        return env

    def _refuse_name(self, name: str, plugin: Plugin) -> None:
        """Refuse the name of another backend: its notes and history are under it."""
        if name != plugin.name and name in {
            *self.backends.plugins,
            *self.backends.broken,
        }:
            self.faults.append(
                f"{self.places.place('offers', name)}: {name!r} is the name of another"
                f" backend than {plugin.name!r}, which this offer has; choose another"
                " name"
            )

    def _plugin_of(self, name: str, table: Mapping[str, Any]) -> Plugin | None:
        known = sorted(self.backends.plugins)
        if "backend" not in table:
            likely = name if name in known else "NAME"
            self.faults.append(
                f"{self.places.place('offers', name)}: this offer has no backend; write"
                f' backend = "{likely}", one of {", ".join(known)}'
            )
            return None
        place = self.places.place("offers", name, "backend")
        if (backend := backends_of({name: table}).get(name)) is None:
            self.faults.append(
                f"{place}: {table['backend']!r} is no backend; write one of"
                f" {', '.join(known)}"
            )
        elif backend in self.backends.broken:
            self.faults.append(f"{place}: {self.backends.broken[backend]}")
        elif backend not in known:
            self.faults.append(
                f"{place}: no backend {backend!r}{guess(backend, known)}"
            )
        return self.backends.plugins.get(backend or "")

    def _without_unknown(
        self, name: str, table: Mapping[str, Any], plugin: Plugin | None
    ) -> Mapping[str, Any]:
        """Return what a table has of known settings; tell each other, not its value."""
        known = _keys(OfferTable, *([plugin.settings] if plugin else []))
        for key in table:
            if key in known or plugin is None:
                continue
            place = self.places.place("offers", name, key)
            if key in PoolTable.model_fields:
                likely = "; it belongs to a pool: write it in [pools.NAME]"
            else:
                likely = guess(_by_variable(plugin.settings).get(key, key), known)
            self.faults.append(f"{place}: unknown setting{likely}")
        return {key: value for key, value in table.items() if key in known}

    def _settings(
        self, name: str, plugin: Plugin, own: Mapping[str, Any]
    ) -> BackendSettings | None:
        """Return the backend's settings of an offer; None if a value is wrong."""
        if _takes_anything(plugin):
            return BackendSettings()
        prefix, fields = f"offers.{name}.", plugin.settings.model_fields
        base = self._base(plugin, own)
        origin = {f"{prefix}{key}": self._origin(plugin, key) for key in base}
        origin |= self.places.of_keys(own, "offers", name)
        group, merged = prefix.removesuffix("."), {**base, **own}
        halves = half_pairs({group: merged}, origin, {group: plugin.settings})
        self.faults += [self._in_place(name, plugin, told) for told in halves]
        try:
            found: BackendSettings = plugin.settings.model_validate(merged)
        except ValidationError as error:
            self.faults += sentences(error, prefix, origin, _fields(prefix, fields))
            return None
        return found

    def _base(self, plugin: Plugin, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the backend's own table and variables say beside an offer's."""
        fields = plugin.settings.model_fields
        source = table_of(self.values, plugin.name) if plugin.has_table else self.values
        pairs = plugin.settings.pairs
        apart = {key for keys in pairs if {*keys} & {*own} for key in keys}
        for key, others in plugin.settings.bound.items():
            if key in own and key in source and own[key] != source[key]:
                apart.update(others)
        return {
            key: value
            for key, value in source.items()
            if key not in apart and (plugin.has_table or key in fields)
        }

    def _origin(self, plugin: Plugin, key: str) -> str:
        if plugin.has_table:
            return place_of(plugin.name, key, self.origin)
        return self.origin.get(key, key)

    def _options(self, plugin: Plugin, own: Mapping[str, Any]) -> Mapping[str, object]:
        """Return the settings of a plug-in that declares none, or of any plug-in."""
        options = table_of(self.values, "backend_options")
        return {**options, **own} if _takes_anything(plugin) else options

    def recall(
        self, name: str, backend: str, noted: Mapping[str, object]
    ) -> OfferSpec | None:
        """Return an offer from what was noted of it, with the backend's own secrets.

        Of settings that belong together, such as the two halves of a key, all are the
        backend's present ones.
        """
        plugin = self.backends.get(backend)
        together = {key for keys in plugin.settings.pairs for key in keys}
        fields = plugin.settings.model_fields
        own = {k: v for k, v in noted.items() if k in fields and k not in together}
        settings = self._settings(name, plugin, own)
        if settings is None:
            return None
        offer = OfferSpec(name, backend, settings, options=self._options(plugin, {}))
        self.faults += plugin.faults(settings, Choice(backend, backend))
        return offer

    def told_by_backend(
        self, offer: OfferSpec, models: tuple[str, ...]
    ) -> Iterator[str]:
        """Yield what a backend finds wrong with an offer that is right one by one."""
        plugin = self.backends.plugins[offer.backend]
        choice = Choice(offer.backend, offer.backend, models)
        for told in plugin.faults(offer.settings, choice):
            yield self._in_place(offer.name, plugin, told)

    def _in_place(self, name: str, plugin: Plugin, told: str) -> str:
        """Return a sentence on variables as one on keys of the offer's table."""
        keys = _by_variable(plugin.settings)

        def key_of(found: re.Match[str]) -> str:
            return keys.get(found[0], found[0])

        head, colon, rest = told.partition(": ")
        named = [keys[one] for one in head.split(", ") if one in keys]
        if not colon or not named:
            return f"{self.places.place('offers', name)}: {told}"
        place = self.places.place("offers", name, named[0])
        others = "".join(f", {key}" for key in named[1:])
        return f"{place}{others}: {_VARIABLE.sub(key_of, rest)}"


def _takes_anything(plugin: Plugin) -> bool:
    """Tell whether a plug-in declares no settings: ``[backend_options]`` has them."""
    return not plugin.settings.model_fields and not plugin.has_table


def _keys(*kinds: type[Any]) -> list[str]:
    return [key for kind in kinds for key in kind.model_fields]


def _fields(prefix: str, fields: Mapping[str, FieldInfo]) -> dict[str, FieldInfo]:
    return {f"{prefix}{key}": field for key, field in fields.items()}


def _by_variable(kind: type[BackendSettings]) -> dict[str, str]:
    """Return the name in the file of each environment variable of a backend."""
    return {
        variable: key
        for key, found in kind.model_fields.items()
        for variable in environment_names(found)
    }
