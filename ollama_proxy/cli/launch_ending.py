"""End one launch on record while no proxy runs: for ``stop --launch``.

Its offer may have gone from the settings. Then what was noted of the offer is used,
with the secrets that the tables and variables of its backend have now.
"""

import json
from collections.abc import Callable
from contextlib import aclosing, closing

from ollama_proxy.base.clock import open_clock
from ollama_proxy.base.errors import SettingsError, StartupError
from ollama_proxy.composition.backend import open_offer
from ollama_proxy.config.pools import OfferSpec
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.slot_keys import SlotKey, parse_slot_key
from ollama_proxy.fleet.stop_until_gone import until_gone
from ollama_proxy.store.claim import Claim
from ollama_proxy.store.opening import open_store
from ollama_proxy.store.ports import Store

Recall = Callable[[str, str, dict[str, object]], OfferSpec]
"""Returns an offer from its name, its backend and what was noted of its settings."""


async def end_launch(settings: Settings, launch_id: LaunchId, recall: Recall) -> str:
    """Stop a launch until its cloud says that it is gone; return its offer.

    Raises `StartupError` while a proxy runs on the state folder, and for a launch that
    is not on record; `SettingsError` without the secrets of its backend.
    """
    with closing(open_store(settings.state_dir)) as store:
        key = _key_of(store, launch_id)
        claim = store.claims().get(key.offer) or Claim(key.offer, key.offer)
        offer = _offer_of(settings, claim) or _recalled(recall, claim, launch_id)
        clock = open_clock(store)
        async with aclosing(open_offer(offer, settings, store, clock)) as backend:
            await until_gone(backend, launch_id)
        store.forget([launch_id])
    return offer.name


def _key_of(store: Store, launch_id: LaunchId) -> SlotKey:
    for slot, named in store.launches().items():
        key = parse_slot_key(slot)
        if named == launch_id and key is not None:
            return key
    launches = ", ".join(sorted(store.launches().values())) or "none"
    raise StartupError(
        f"launch {launch_id} is not on record (there: {launches}); `ollama-proxy sweep`"
        " ends what no record names"
    )


def _offer_of(settings: Settings, claim: Claim) -> OfferSpec | None:
    """Return the offer of the settings, if it is still the one that was noted."""
    for offer in settings.offers:
        if (offer.name, offer.backend) == (claim.offer, claim.backend):
            return offer
    return None


def _recalled(recall: Recall, claim: Claim, launch_id: LaunchId) -> OfferSpec:
    try:
        return recall(claim.offer, claim.backend, json.loads(claim.spec))
    except SettingsError as error:
        raise SettingsError(
            [
                f"launch {launch_id} can't be ended as long as its backend,"
                f" {claim.backend!r}, lacks settings that were not noted with it:",
                *error.faults,
            ]
        ) from error
