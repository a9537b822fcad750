"""Read the tables ``[pools.NAME]``: which models, from which offers, how many."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ollama_proxy.config.fault_words import guess, validated
from ollama_proxy.config.pool_tables import OfferTable, PoolTable
from ollama_proxy.config.pools import (
    DEFAULT_POOL,
    OfferSpec,
    Pools,
    PoolSpec,
    groups_of,
)
from ollama_proxy.config.settings import Settings
from ollama_proxy.config.toml_lines import FilePlaces
from ollama_proxy.core.ollama.model_globs import ModelGlob
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.backend_loader import Backends


@dataclass(slots=True)
class PoolReader:
    """Reads pools; what is wrong is added to ``faults``, a sentence each.

    ``offers`` are those that could be read, ``names`` those that the file has.
    """

    offers: Mapping[str, OfferSpec]
    names: Sequence[str]
    settings: Settings
    places: FilePlaces
    faults: list[str] = field(default_factory=list)

    def read(self, tables: Mapping[str, Mapping[str, Any]]) -> Pools:
        """Return every pool; one of all offers if the file has none."""
        found = {
            name: self._table(name, given)
            for name, given in (tables or {DEFAULT_POOL: {}}).items()
        }
        taking = self._uploads(found)
        pools = tuple(
            self._pool(name, table, takes_uploads=name == taking)
            for name, table in found.items()
        )
        self._refuse_swallowed(pools)
        used = {one for table in found.values() for one in self._offers_of(table)}
        unused = [one for one in self.offers.values() if one.name not in used]
        notices = tuple(
            f"{one.place}: no pool uses this offer; name it in the offers of one"
            for one in unused
        )
        return Pools(pools, tuple(self.offers.values()), notices)

    def _table(self, name: str, given: Mapping[str, Any]) -> PoolTable:
        known = list(PoolTable.model_fields)
        for key in given:
            if key in known:
                continue
            likely = guess(key, known)
            if key in OfferTable.model_fields:
                likely = "; it belongs to an offer: write it in [offers.NAME]"
            place = self.places.place("pools", name, key)
            self.faults.append(f"{place}: unknown setting{likely}")
        values = {key: value for key, value in given.items() if key in known}
        origin = self.places.of_keys(values, "pools", name)
        return validated(PoolTable, values, f"pools.{name}.", origin, self.faults)

    def _pool(self, name: str, table: PoolTable, *, takes_uploads: bool) -> PoolSpec:
        settings = self.settings
        if table.min_instances > table.max_instances:
            place = self.places.place("pools", name, "min_instances")
            self.faults.append(
                f"{place}: {table.min_instances} are more than max_instances ="
                f" {table.max_instances}; write {table.max_instances} or less, or a"
                " larger max_instances"
            )
        idle_timeout = table.idle_timeout
        policy = PoolPolicy(
            min_instances=table.min_instances,
            max_instances=table.max_instances,
            max_starting=table.max_starting,
            idle_timeout_s=(
                settings.idle_timeout if idle_timeout is None else idle_timeout
            ),
            keep_extra_s=table.keep_extra,
            impatience=table.impatience,
            spill_after_s=table.spill_after,
        )
        return PoolSpec(
            name,
            tuple(self._globs(name, table)),
            tuple(self._offers(name, table)),
            policy,
            settings.hold if table.hold is None else table.hold,
            takes_uploads,
        )

    def _globs(self, name: str, table: PoolTable) -> Iterator[ModelGlob]:
        place = self.places.place("pools", name, "models")
        if not table.models:
            self.faults.append(
                f"{place}: it serves no model; write names, or * for all"
            )
        for text in table.models:
            try:
                yield ModelGlob(text)
            except ValueError as error:
                self.faults.append(f"{place}: {error}")

    def _offers_of(self, table: PoolTable) -> Sequence[str]:
        return self.names if table.offers is None else table.offers

    def _offers(self, name: str, table: PoolTable) -> Iterator[OfferSpec]:
        place = self.places.place("pools", name, "offers")
        if not self._offers_of(table):
            self.faults.append(
                f"{place}: it has no offer; name one, or remove the line"
            )
        for one in self._offers_of(table):
            if one not in self.names:
                self.faults.append(f"{place}: no offer {one!r}{guess(one, self.names)}")
            elif one in self.offers:
                yield self.offers[one]

    def _uploads(self, found: Mapping[str, PoolTable]) -> str | None:
        """Return the pool that takes uploads: the one that says so, else the first."""
        taking = [name for name, table in found.items() if table.uploads]
        for name in taking[1:]:
            place = self.places.place("pools", name, "uploads")
            self.faults.append(
                f"{place}: the pool {taking[0]!r} takes uploads already, and one does;"
                " remove one of the two lines"
            )
        willing = [name for name, table in found.items() if table.uploads is not False]
        if found and not willing:
            place = self.places.place("pools", next(iter(found)), "uploads")
            self.faults.append(
                f"{place}: no pool would take uploads; remove the line from one of them"
            )
        return next(iter(taking or willing), None)

    def _refuse_swallowed(self, pools: Sequence[PoolSpec]) -> None:
        """Tell of each glob that no model can reach, as an earlier one has them all."""
        for later, its, earlier, other in groups_of(pools).swallowed():
            place = self.places.place("pools", its, "models")
            pool = "" if other == its else f" of the pool {other!r}"
            self.faults.append(
                f"{place}: {later.text!r} is never reached, as the earlier"
                f" {earlier.text!r}{pool} takes every such model; put it before that,"
                " or remove it"
            )


def clashes(
    offers: Sequence[OfferSpec], backends: Backends, places: FilePlaces
) -> Iterator[str]:
    """Yield a sentence for each thing in a cloud that two offers would both use."""
    taken: dict[tuple[str, str], OfferSpec] = {}
    for offer in offers:
        named = backends.plugins[offer.backend].resource_names(offer.settings)
        for resource, keys in named.items():
            other = taken.setdefault((offer.backend, resource), offer)
            if other is not offer:
                place = places.place("offers", offer.name, keys)
                yield (
                    f"{place}: the offer {other.name!r} has the {resource} too, and"
                    " each needs its own; write another one, or make it one offer"
                )
