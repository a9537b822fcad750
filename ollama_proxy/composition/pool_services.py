"""Build what belongs to each pool besides its instances: models, words, pulls."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import msgspec

from ollama_proxy.base.clock import date_of
from ollama_proxy.base.errors import StoreError
from ollama_proxy.composition.backend import place_name
from ollama_proxy.composition.fleet import Fleet
from ollama_proxy.composition.pools import PoolParts, Shared
from ollama_proxy.config.policies import needs_without_wake, wake_rule_of
from ollama_proxy.config.pools import PoolSpec, groups_of
from ollama_proxy.core.lifecycle.record import AT_REST, Record, State
from ollama_proxy.core.ollama.catalog import Catalog, Snapshot
from ollama_proxy.core.ollama.listed_models import models_by_name
from ollama_proxy.fleet.backend import SupportsModelListing, Traits
from ollama_proxy.fleet.house import NodeChange
from ollama_proxy.fleet.house_models import HouseModels
from ollama_proxy.fleet.instance_client import InstanceClient
from ollama_proxy.fleet.neighbours import Neighbours
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.offer_models import OfferModels
from ollama_proxy.fleet.restored_models import RestoredModels
from ollama_proxy.serving.catalog_refresher import CatalogRefresher
from ollama_proxy.serving.change_notes import ChangeNotes
from ollama_proxy.serving.cold_answers import ColdAnswers
from ollama_proxy.serving.extra_routes import ExtraRoutes
from ollama_proxy.serving.fleet_view import FleetView
from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.serving.house_catalog import HouseCatalog, HouseModelList
from ollama_proxy.serving.idle_ignores import IdleIgnores
from ollama_proxy.serving.lesson_book import LessonBook
from ollama_proxy.serving.model_changes import ModelChanges
from ollama_proxy.serving.other_instances import OtherInstances
from ollama_proxy.serving.own_replies import OwnReplies
from ollama_proxy.serving.pool_map import PoolMap
from ollama_proxy.serving.pool_services import PoolServices
from ollama_proxy.serving.pool_status import PoolStatus
from ollama_proxy.serving.shared_pulls import MOST_DETACHED, Pulls
from ollama_proxy.serving.unknown_models import UnknownModels
from ollama_proxy.serving.whereabouts import Whereabouts
from ollama_proxy.store.ports import Place


class PoolServicesBuilder:
    """Builds the services of one pool after the other; nothing runs yet."""

    def __init__(
        self, fleet: Fleet, *, neighbours: Neighbours | None, hold: HoldPolicy | None
    ) -> None:
        self._fleet = fleet
        self._shared = fleet.shared
        self._neighbours = neighbours
        self._hold = hold

    def build_all(self) -> PoolMap:
        """Build the services of every pool, in their order."""
        specs = self._shared.settings.pools
        groups = groups_of(specs)
        uploads = next((spec.name for spec in specs if spec.uploads), specs[0].name)
        pools = PoolMap(groups, uploads, is_hub=self._shared.settings.hub)
        for spec in specs:
            pools.add(self._build(spec, self._fleet.pools[spec.name], pools))
        return pools

    def _build(self, spec: PoolSpec, parts: PoolParts, pools: PoolMap) -> PoolServices:
        shared, clock = self._shared, self._shared.clock
        place = shared.store.place(
            place_name(spec.name, parts.offer.name, parts.offer.backend)
        )
        catalogue, book = self._catalogue(parts, place), LessonBook(place, clock)
        pulls, places = self._pulls(), _places(parts)
        others = OtherInstances(parts.pool, shared.relay, pulls, places)
        models = offer_models_of(spec.name, parts, shared)
        known = house_models_of(parts, models)
        unknown = self._unknown(parts, catalogue, book, pulls, models, known, places)
        keeper = self._keeper(parts, catalogue, place, unknown)
        status = self._status(spec, parts)
        return PoolServices(
            name=spec.name,
            pool=parts.pool,
            hold=self._hold or HoldPolicy(spec.hold_s, shared.settings.max_hold),
            place=place,
            places=places,
            fleet=self._view(spec, parts, pools, unknown, catalogue),
            catalogue=catalogue,
            book=book,
            unknown=unknown,
            keeper=keeper,
            extra_routes=ExtraRoutes(
                shared.settings.extra_routes, book, lambda: catalogue.last_version
            ),
            restored=parts.restored,
            pulls=pulls,
            others=others,
            changes=ModelChanges(
                pool=parts.pool,
                relay=shared.relay,
                pulls=pulls,
                notes=ChangeNotes(parts.restored, places),
                others=others,
                changed=partial(_models_changed, keeper, models),
            ),
            gpus=parts.gpus,
            status=status,
            replies=OwnReplies(ColdAnswers(catalogue), status, shared.mark, clock),
            offer_models=models,
            nodes=HouseModelList(parts.pool.houses) if parts.pool.houses else None,
        )

    def _view(
        self,
        spec: PoolSpec,
        parts: PoolParts,
        pools: PoolMap,
        unknown: UnknownModels,
        catalogue: Catalog,
    ) -> FleetView:
        settings = self._shared.settings
        return FleetView(
            spec.name,
            parts.pool,
            pools,
            unknown,
            IdleIgnores(settings.idle_ignores),
            needs_without_wake(settings, traits_of(parts.offers)),
            lambda: catalogue.last_version,
        )

    def _catalogue(self, parts: PoolParts, place: Place) -> Catalog:
        backend, clock = parts.offer.backend, self._shared.clock
        houses = parts.pool.houses
        kind = Catalog if not houses else partial(HouseCatalog, HouseModelList(houses))
        return kind(
            parts.offer.models,
            version=self._shared.settings.asleep_version,
            since=partial(date_of, clock, clock.now()),
            contents=place.contents(),
            restored=parts.restored,
            stock=backend if isinstance(backend, SupportsModelListing) else None,
        )

    def _pulls(self) -> Pulls:
        settings = self._shared.settings
        return Pulls(
            self._shared.relay,
            clock=self._shared.clock,
            stall_s=settings.stall_timeout,
            most=MOST_DETACHED if settings.detached_pulls else 0,
        )

    def _unknown(
        self,
        parts: PoolParts,
        catalogue: Catalog,
        book: LessonBook,
        pulls: Pulls,
        models: OfferModels | None,
        known: HouseModels | None,
        places: Whereabouts,
    ) -> UnknownModels:
        traits = traits_of(parts.offers)
        return UnknownModels(
            wake_rule_of(self._shared.settings, traits),
            listing=catalogue,
            launches=parts.pool,
            book=book,
            clock=self._shared.clock,
            starts_empty=traits.starts_empty,
            also_known=partial(_known_besides, pulls, parts.restored, models),
            known_to_nodes=None if known is None else partial(_knows, known, places),
        )

    def _keeper(
        self, parts: PoolParts, catalogue: Catalog, place: Place, unknown: UnknownModels
    ) -> CatalogRefresher:
        return CatalogRefresher(
            parts.pool,
            probe=parts.probes[parts.offer.name],
            catalogue=catalogue,
            place=place,
            asking=unknown.list_asked,
            timing=self._shared.timing,
        )

    def _status(self, spec: PoolSpec, parts: PoolParts) -> PoolStatus:
        shared = self._shared
        return PoolStatus(
            name=spec.name,
            pool=parts.pool,
            models=tuple(parts.offer.models),
            serves=tuple(glob.text for glob in spec.models),
            estimates=shared.estimates,
            stage_estimates=shared.stages,
            clock=shared.clock,
            rng=shared.rng,
            disk=shared.store,
            neighbours=self._neighbours,
        )


def offer_models_of(pool: str, parts: PoolParts, shared: Shared) -> OfferModels | None:
    """Return what knows the models of each offer; None if one list does for all.

    That is so unless a server of others stands beside instances of ours, or nodes do.
    """
    traits = [offer.backend.traits for offer in parts.offers]
    if not parts.pool.controllers:
        return None
    is_of_one_kind = len({one.externally_managed for one in traits}) == 1
    if is_of_one_kind and not parts.pool.houses:
        return None
    client = InstanceClient(shared.probing, shared.mark, shared.timing)
    places = {
        offer.name: shared.store.place(
            f"models of {place_name(pool, offer.name, offer.backend)}"
        )
        for offer in parts.offers
    }
    models = OfferModels(
        parts.pool.controllers,
        present=client.present,
        known={name: _names_in(place.contents()) for name, place in places.items()},
        save=lambda offer, names: _save_names(places[offer], names),
    )
    parts.pool.spill(models.spills)
    return models


def house_models_of(parts: PoolParts, models: OfferModels | None) -> HouseModels | None:
    """Return what knows the models of a pool with nodes; None for any other."""
    if parts.pool.nodes is None:
        return None
    known = HouseModels(parts.pool.nodes, models)
    parts.pool.spill(known.spills, known.helps)
    return known


def _names_in(contents: Snapshot | None) -> frozenset[str]:
    return frozenset() if contents is None else frozenset(models_by_name(contents.tags))


def _save_names(place: Place, names: frozenset[str]) -> None:
    """Write the names down for the next process; without a disk it asks again."""
    tags = msgspec.json.encode({"models": [{"name": name} for name in sorted(names)]})
    with contextlib.suppress(StoreError):
        place.put_contents(Snapshot(tags, ""))


def traits_of(offers: Sequence[Offer]) -> Traits:
    """Return what is true of the instances of all offers of a pool."""
    traits = [offer.backend.traits for offer in offers]
    return replace(
        traits[0],
        externally_managed=all(one.externally_managed for one in traits),
        persistent_models=all(one.persistent_models for one in traits),
        starts_empty=all(one.starts_empty for one in traits),
    )


def _places(parts: PoolParts) -> Whereabouts:
    """Return what only one instance has, as far as an earlier process noted it."""
    several = len(parts.pool.controllers) > 1 or bool(parts.pool.houses)
    places = Whereabouts(parts.pool.has_ready, matters=several)
    created = parts.restored.created_on() if parts.restored is not None else {}
    for model, launch_id in created.items():
        places.created(model, launch_id)
    for controller in parts.pool.controllers:
        controller.subscribe(partial(_forget_instance, places))
    for house in parts.pool.houses:
        house.subscribe(partial(_forget_node, places))
    return places


def _knows(known: HouseModels, places: Whereabouts, full_name: str) -> bool:
    """Tell whether some instance has a model, or was just made to have it."""
    return known.knows(full_name) or places.instance_of(full_name) is not None


def _forget_node(places: Whereabouts, change: NodeChange) -> None:
    """Forget what a node alone had: it is gone, or its agent began anew."""
    launch_id = change.before.launch_id if change.before is not None else None
    is_same = change.is_there and launch_id == change.node.record.launch_id
    if launch_id is not None and not is_same:
        places.gone(launch_id)


def _forget_instance(places: Whereabouts, before: Record, after: Record) -> None:
    """Forget what an instance alone had: it is being stopped, or lost."""
    is_over = after.state is State.STOPPING or after.state in AT_REST
    if is_over and before.launch_id is not None:
        places.gone(before.launch_id)


def _known_besides(
    pulls: Pulls, restored: RestoredModels | None, models: OfferModels | None
) -> Sequence[str]:
    """Return the models that instances are about to have, or those of some offer."""
    named = [pull.request.model_name for pull in pulls.under_way()]
    named += models.own() if models is not None else []
    return named + (restored.hoped_for() if restored is not None else [])


def _models_changed(keeper: CatalogRefresher, models: OfferModels | None) -> None:
    keeper.models_changed()
    if models is not None:
        models.models_changed()
