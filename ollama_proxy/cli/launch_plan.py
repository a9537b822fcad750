"""Say what a launch would start, where, at what price and why, without a cloud."""

from dataclasses import dataclass

from ollama_proxy.base.fields import BackendSettings, shown_name
from ollama_proxy.config.settings import Settings
from ollama_proxy.fleet.backend import Backend, SupportsPrices

_PRICE = "price_per_hour"


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """Describes what the first request that needs a model will start.

    ``reason``: why this backend was selected. ``instance_type``, ``location``: None if
    the backend does not know. ``price``: in words. ``assumptions``: sentences on values
    that were assumed.
    """

    backend: str
    reason: str
    instance_type: str | None
    location: str | None
    alternatives: tuple[str, ...]
    price: str
    assumptions: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Return the plan for people: ``exoscale: a5000.small (at-vie-2), price …``."""
        where = f" ({self.location})" if self.location else ""
        what = f"{self.instance_type or 'an instance'}{where}"
        if self.alternatives:
            what += f", without room there {' or '.join(self.alternatives)}"
        told = f"{self.backend}: {what}, {self.price}; chosen because {self.reason}"
        return "; ".join((told, *self.assumptions))


def launch_plan(settings: Settings, backend: Backend) -> LaunchPlan:
    """Return what the backend would start, from the settings alone."""
    traits, selection = backend.traits, settings.selection
    location, instance_type = traits.location, traits.instance_type
    if traits.externally_managed:
        instance_type = "a server that is there anyway"
        location = location or traits.models_place
    return LaunchPlan(
        backend=selection.backend,
        reason=selection.reason,
        instance_type=instance_type,
        location=location,
        alternatives=traits.alternatives,
        price=_price(settings.of_backend, backend),
        assumptions=tuple(settings.of_backend.assumptions()),
    )


def _price(settings: BackendSettings, backend: Backend) -> str:
    """Return the price in words, as far as the settings have it."""
    traits = backend.traits
    if traits.externally_managed or traits.child_process:
        return "at no price"
    per_hour = backend.prices.per_hour if isinstance(backend, SupportsPrices) else None
    if per_hour is not None:
        return f"{per_hour:g} per hour as configured"
    field = type(settings).model_fields.get(_PRICE)
    if field is None:
        return "price unknown"
    return f"price unknown ({shown_name(_PRICE, field)} is not set)"
