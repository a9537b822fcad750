"""Build the backend of each offer, and what launches are made of."""

import contextlib
import json
import os
from collections.abc import Mapping

import msgspec
from pydantic_core import PydanticSerializationError

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.fields import is_secret
from ollama_proxy.config.pools import (
    DEFAULT_POOL,
    OfferSpec,
    PoolSpec,
    groups_of,
    models_of,
)
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.ollama.suggested_model import SIMULATED_MODELS
from ollama_proxy.core.slot_count import environment_of_instances, slots_of
from ollama_proxy.core.slot_keys import SlotKey
from ollama_proxy.fleet.backend import Backend, BackendContext, place_of
from ollama_proxy.fleet.backend_loader import find_backends
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.offer_tag import OfferTag
from ollama_proxy.fleet.reports import secrets_in
from ollama_proxy.store.claim import Claim
from ollama_proxy.store.ports import Store


def open_backends(settings: Settings, store: Store, clock: Clock) -> dict[str, Backend]:
    """Build the backend of every offer, by the offer, in the settings' order.

    Raises `StartupError` if the settings lose an offer that has an instance.
    """
    opened = {
        offer.name: open_offer(offer, settings, store, clock)
        for offer in settings.offers
    }
    claims = [claim_of(one, opened[one.name]) for one in settings.offers]
    store.claim(claims, record_keys(settings, opened))
    return opened


def open_backend(settings: Settings, store: Store, clock: Clock) -> Backend:
    """Build the backend of the first offer."""
    return next(iter(open_backends(settings, store, clock).values()))


def open_offer(
    offer: OfferSpec, settings: Settings, store: Store, clock: Clock
) -> Backend:
    """Build the backend of an offer. Its notes are kept under the offer's name."""
    plugin, folder = find_backends().get(offer.backend), settings.state_dir
    own = offer.settings
    context = BackendContext(
        store.owner_id,
        folder,
        store.notes_of(offer.name),
        clock,
        {
            "models": models_of(offer, settings.pools, settings.models),
            "max_lifetime": settings.max_lifetime,
            **offer.options,
            **({offer.backend: own} if type(own).model_fields else {}),
        },
        store.remembers,
        os.environ,
        _environment(offer, settings),
        _tag_of(offer, settings),
    )
    try:
        backend: Backend = plugin.open(context)
    except msgspec.DecodeError as error:
        raise StartupError(
            f"the notes of the offer {offer.name!r} in {str(folder)!r} can't be read"
            f" ({error}); run the version that wrote them"
        ) from error
    return backend


def _tag_of(offer: OfferSpec, settings: Settings) -> OfferTag:
    """Return the mark of an offer; the one that is called as its backend needs none.

    One that the settings no longer have is only itself.
    """
    alike = [one.name for one in settings.offers if one.backend == offer.backend]
    tags = {name: "" if name == offer.backend else name for name in alike}
    own = "" if offer.name == offer.backend else offer.name
    return OfferTag(
        own,
        frozenset(tags.values()) - {own},
        takes_leftovers=offer.name in alike[:1],
    )


def _environment(offer: OfferSpec, settings: Settings) -> dict[str, str]:
    """Return the variables of Ollama that the instances of an offer are given."""
    using = [pool for pool in settings.pools if offer in pool.offers]
    inherits = find_backends().get(offer.backend).inherits_environment
    return environment_of_instances(
        offer.env,
        slots=offer.slots,
        max_instances=max((pool.policy.max_instances for pool in using), default=1),
        inherited=os.environ if inherits else None,
    )


def record_keys(settings: Settings, backends: Mapping[str, Backend]) -> list[str]:
    """Return the keys of all records that the pools of the settings have.

    A server that somebody else manages has one, whatever number its pool may have;
    nodes, which register themselves, have none.
    """
    return [
        str(SlotKey(pool.name, index, offer.name))
        for pool in settings.pools
        for offer in pool.offers
        if not backends[offer.name].traits.registers_itself
        for index in range(
            1
            if backends[offer.name].traits.externally_managed
            else pool.policy.max_instances
        )
    ]


def claim_of(offer: OfferSpec, backend: Backend) -> Claim:
    """Return what is noted of an offer: its instances can be found without it."""
    costs = not backend.traits.is_free
    return Claim(offer.name, offer.backend, costs, _without_secrets(offer))


def _without_secrets(offer: OfferSpec) -> bytes:
    """Return what an offer's settings say, as JSON, but for their secrets.

    A plug-in's setting that can't be written as JSON is left out.
    """
    own = offer.settings
    fields = type(own).model_fields
    noted: dict[str, object] = {}
    for key in sorted(own.model_fields_set):
        if is_secret(fields[key]) or secrets_in({key: getattr(own, key)}):
            continue
        with contextlib.suppress(PydanticSerializationError):
            noted |= own.model_dump(mode="json", include={key})
    return json.dumps(noted).encode()


def offers_of(
    pool: PoolSpec, settings: Settings, backends: Mapping[str, Backend]
) -> tuple[Offer, ...]:
    """Return what the launches of a pool are made of, in order of preference."""
    return tuple(
        _offer(offer, pool, settings, backends[offer.name]) for offer in pool.offers
    )


def _offer(
    spec: OfferSpec, pool: PoolSpec, settings: Settings, backend: Backend
) -> Offer:
    own, models = spec.settings, settings.models
    if not models and backend.traits.simulated:
        models = SIMULATED_MODELS
    groups = groups_of(settings.pools)
    own_settings = [one.settings for one in settings.offers]
    made_of: object = own if type(own).model_fields else spec.options
    environment = _environment(spec, settings)
    inherits = find_backends().get(spec.backend).inherits_environment
    return Offer(
        spec.name,
        backend,
        ()
        if backend.traits.registers_itself  # its machines have what they have
        else tuple(one for one in models if groups.group_of(one) == pool.name),
        [made_of, environment] if environment else made_of,
        secrets_in([settings, *settings.of_backends.values(), *own_settings]),
        backend_name=spec.backend,
        slots=slots_of(
            spec.slots,
            offers=len(pool.offers),
            max_instances=pool.policy.max_instances,
            environment=(
                None
                if backend.traits.externally_managed
                else {**(os.environ if inherits else {}), **environment}
            ),
        ),
        price_per_hour=spec.price_per_hour,
        currency=spec.currency,
    )


def place_name(pool: str, offer: str, backend: Backend) -> str:
    """Return where what is known of a pool's models is kept: by its first offer."""
    where = place_of(offer, backend.traits)
    return where if pool == DEFAULT_POOL else f"{pool}/{where}"
