"""Put pools and offers of the settings file and the other settings together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ollama_proxy.base.fields import BackendSettings
from ollama_proxy.config.offer_reading import OfferReader, backends_of, tables_of
from ollama_proxy.config.pool_reading import PoolReader, clashes
from ollama_proxy.config.pools import OfferSpec, models_of
from ollama_proxy.config.selection import Selection, select_offered
from ollama_proxy.config.settings import Settings
from ollama_proxy.config.toml_lines import FilePlaces
from ollama_proxy.fleet.backend_loader import Backends


@dataclass(frozen=True, slots=True)
class PoolTables:
    """Holds the tables of offers and of pools as found, and where they stand."""

    offers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    places: FilePlaces = field(default_factory=FilePlaces)

    def selection(self, backends: Backends) -> Selection | None:
        """Return the backends that the offers name; None if they name none."""
        named = backends_of(self.offers)
        known = {name: one for name, one in named.items() if one in backends.plugins}
        if not known:
            return None
        first = self.places.place("offers", next(iter(known)))
        return select_offered(known, first)


def taken_tables(
    values: dict[str, Any], places: FilePlaces, faults: list[str]
) -> PoolTables:
    """Remove the tables of offers and pools from ``values``, and return them."""
    offers, pools = values.pop("offers", None), values.pop("pools", None)
    return PoolTables(
        tables_of("offers", offers, places, faults),
        tables_of("pools", pools, places, faults),
        places,
    )


def first_settings(offers: Mapping[str, OfferSpec]) -> dict[str, BackendSettings]:
    """Return the settings of each backend: those of its first offer."""
    found: dict[str, BackendSettings] = {}
    for offer in offers.values():
        found.setdefault(offer.backend, offer.settings)
    return found


def with_pools(
    settings: Settings,
    tables: PoolTables,
    offers: Mapping[str, OfferSpec],
    reader: OfferReader,
) -> Settings:
    """Return the settings with the pools of the file, if there are any.

    What is wrong between values that are right one by one is added to the reader's
    faults.
    """
    if not (tables.offers or tables.pools):
        return settings
    known = dict(offers) if tables.offers else {o.name: o for o in settings.offers}
    names = list(tables.offers or known)
    pools = PoolReader(known, names, settings, tables.places)
    found = pools.read(tables.pools)
    reader.faults += pools.faults
    if tables.offers:
        for offer in offers.values():
            models = models_of(offer, found.pools, settings.models)
            reader.faults += reader.told_by_backend(offer, models)
        reader.faults += clashes(found.offers, reader.backends, tables.places)
        reader.faults += _named_besides(settings, reader)
        found = replace(
            found, notices=(*found.notices, *_unused_beside(settings, reader))
        )
    return settings.with_pools(found)


def _unused_beside(settings: Settings, reader: OfferReader) -> Iterator[str]:
    """Yield a sentence for each setting beside the proxy's own that no offer uses.

    These mean a backend as its name does, which without offers would be used.
    """
    for name, plugin in reader.backends.plugins.items():
        if plugin.has_table or name in settings.selection.offered:
            continue
        for key in plugin.is_meant(plugin.settings, reader.values):
            yield (
                f"{reader.origin.get(key, key)}: no offer has the backend {name!r}, so"
                " this is not used; add an offer with it"
            )


def _named_besides(settings: Settings, reader: OfferReader) -> Iterator[str]:
    """Yield a sentence if a backend is named that no offer has."""
    if settings.backend and settings.backend not in settings.selection.offered:
        place = reader.origin.get("backend", "backend")
        yield (
            f"{place}: no offer has the backend {settings.backend!r}; remove the"
            " setting, or add an offer with that backend"
        )
