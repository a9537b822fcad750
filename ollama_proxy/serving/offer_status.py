"""Say what is known of the offers of a pool: open, passed over for a while, or off."""

from typing import Any

from ollama_proxy.core.offer_choice import Obstacle
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool


def offers_body(pool: Pool, now: float) -> list[dict[str, Any]]:
    """Return the entries of ``offers`` of a pool, in order of preference."""
    found = pool.obstacles()
    by_offer: dict[str, list[Controller]] = {}
    for controller in pool.controllers:
        by_offer.setdefault(controller.offer.name, []).append(controller)
    houses = [_offer(house.offer, [], None, now) for house in pool.houses]
    return houses + [
        _offer(controllers[0].offer, controllers, found.get(name), now)
        for name, controllers in by_offer.items()
    ]


def _offer(
    offer: Offer, controllers: list[Controller], found: Obstacle | None, now: float
) -> dict[str, Any]:
    """Return one entry; ``ends_in_s`` is None until somebody acts, or is not known."""
    failed = [c.record.since for c in controllers if c.record.fault is not None]
    until = found.until if found is not None else None
    return {
        "name": offer.name,
        "backend": offer.backend_name or offer.name,
        "slots": offer.slots,
        "price_per_hour": offer.price_per_hour,
        "currency": offer.currency or None,
        "state": state_of(found),
        "reason": found.message if found is not None else None,
        "since_s": round(now - max(failed), 1) if found and failed else None,
        "ends_in_s": round(max(0.0, until - now), 1) if until is not None else None,
    }


def state_of(found: Obstacle | None) -> str:
    """Return what becomes of launches by an offer: see `offer_states`."""
    if found is None:
        return "open"
    return "off" if found.is_off else "passed_over"


OFFER_STATES = ("open", "passed_over", "off")
"""It is tried; not for a while, since it had no room or failed; or not at all."""
