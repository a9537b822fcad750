"""Say what a launch would start, where, at what price and why, without a cloud."""

from collections.abc import Mapping
from dataclasses import dataclass

from ollama_proxy.base.fields import shown_name
from ollama_proxy.config.pools import OfferSpec
from ollama_proxy.config.settings import Settings
from ollama_proxy.fleet.backend import Backend, SupportsPrices

_PRICE = "price_per_hour"


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """Describes what the first request that needs a model will start.

    ``reason``: why this backend was selected. ``instance_type``, ``location``: None if
    the backend does not know. ``price``: in words. ``assumptions``: sentences on values
    that were assumed. ``offer`` and ``pools``: whose launches these are, empty if the
    settings have no offers. ``registers_itself``: it starts nothing, since its
    instances are nodes.
    """

    backend: str
    reason: str
    instance_type: str | None
    location: str | None
    alternatives: tuple[str, ...]
    price: str
    assumptions: tuple[str, ...] = ()
    offer: str = ""
    pools: tuple[str, ...] = ()
    registers_itself: bool = False

    @property
    def sentence(self) -> str:
        """Return the plan for people: ``exoscale: a5000.small (at-vie-2), price …``."""
        where = f" ({self.location})" if self.location else ""
        what = f"{self.instance_type or 'an instance'}{where}"
        if self.alternatives:
            what += f", without room there {' or '.join(self.alternatives)}"
        told = f"{self.backend}: {what}, {self.price}; chosen because {self.reason}"
        return "; ".join((told, *self.assumptions))

    @property
    def line(self) -> str:
        """Return the plan with its offer, as the start prints it."""
        if not self.offer:
            return f"Backend {self.sentence}."
        pools = " and ".join(repr(pool) for pool in self.pools) or "none"
        plural = "" if len(self.pools) <= 1 else "s"
        return f"Offer {self.offer!r} of pool{plural} {pools}: {self.sentence}."


def launch_plans(
    settings: Settings, backends: Mapping[str, Backend]
) -> tuple[LaunchPlan, ...]:
    """Return what each offer would start, in their order."""
    return tuple(
        _plan(settings, offer, backends[offer.name]) for offer in settings.offers
    )


def launch_plan(settings: Settings, backend: Backend) -> LaunchPlan:
    """Return what the backend of the first offer would start."""
    return _plan(settings, settings.offers[0], backend)


def _plan(settings: Settings, offer: OfferSpec, backend: Backend) -> LaunchPlan:
    """Return what an offer would start, from the settings alone."""
    traits = backend.traits
    location, instance_type = traits.location, traits.instance_type
    if traits.externally_managed:
        instance_type = "a server that is there anyway"
        location = location or traits.models_place
    if traits.registers_itself:
        instance_type, location = "the machines that register here", None
    return LaunchPlan(
        backend=offer.backend,
        reason=settings.reason_of(offer),
        instance_type=instance_type,
        location=location,
        alternatives=traits.alternatives,
        price=_price(offer, backend),
        assumptions=tuple(offer.settings.assumptions()),
        registers_itself=traits.registers_itself,
        offer=offer.name if offer.place else "",
        pools=tuple(
            pool.name
            for pool in settings.pools
            if offer.place and offer.name in {one.name for one in pool.offers}
        ),
    )


def _price(offer: OfferSpec, backend: Backend) -> str:
    """Return the price in words, as far as the settings have it."""
    if offer.price_per_hour is not None:
        currency = f" {offer.currency}" if offer.currency else ""
        return f"{offer.price_per_hour:g}{currency} per hour as configured"
    traits = backend.traits
    if traits.is_free:
        return "at no price"
    per_hour = backend.prices.per_hour if isinstance(backend, SupportsPrices) else None
    if per_hour is not None:
        return f"{per_hour:g} per hour as configured"
    if offer.place:
        return f"price unknown ({_PRICE} is not set)"
    field = type(offer.settings).model_fields.get(_PRICE)
    if field is None:
        return "price unknown"
    return f"price unknown ({shown_name(_PRICE, field)} is not set)"
