"""Name the settings behind a failed call to Exoscale, each with its value. Pure.

A response says what was wrong, seldom which value a person set, and never where.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from ollama_proxy.backends.exoscale.settings import ExoscaleSettings

_ORDER = ("EXOSCALE_INSTANCE_TYPE", "EXOSCALE_TEMPLATE", "EXOSCALE_DISK_SIZE")
_SETTINGS = {
    "create_instance": _ORDER,
    "list_instance_types": _ORDER[:1],
    "list_templates": _ORDER[1:2],
    "add_rule_to_security_group": ("EXOSCALE_ALLOWED_CIDR",),
}
"""Settings of an operation, besides zone and endpoint, which matter for all."""


def values_of(settings: ExoscaleSettings) -> dict[str, str]:
    """Return the settings that may be wrong in an order, with their values."""
    return {
        "EXOSCALE_INSTANCE_TYPE": settings.instance_type,
        "EXOSCALE_TEMPLATE": settings.template,
        "EXOSCALE_DISK_SIZE": str(settings.disk_size),
        "EXOSCALE_ALLOWED_CIDR": ", ".join(settings.allowed_cidr),
    }


class Advice:
    """Says what to look at after a failure in one zone; ``values`` by name."""

    def __init__(self, zone: str, url: str, values: Mapping[str, str]) -> None:
        self._values = {"EXOSCALE_ZONE": zone, **values}
        self._host = urlsplit(url).netloc.rpartition("@")[2]

    @property
    def endpoint(self) -> str:
        """Return where the API is asked, by the settings that say so."""
        asked = f"EXOSCALE_API_ENDPOINT ({self._host} is asked)"
        return f"{self._named('EXOSCALE_ZONE')} and {asked}"

    def order(self, operation: str) -> str:
        """Return the settings that an operation was made of."""
        names = ("EXOSCALE_ZONE", *_SETTINGS.get(operation, ()))
        return ", ".join(self._named(name) for name in names)

    def _named(self, name: str) -> str:
        value = self._values.get(name)
        return f"{name} ({value!r})" if value else name
