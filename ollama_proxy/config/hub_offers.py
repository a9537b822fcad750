"""Check that the hub and the offers of nodes go together."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ollama_proxy.config.selection import HUB
from ollama_proxy.config.settings import Settings

_SWITCH = "OLLAMA_PROXY_HUB"
_BOOL = TypeAdapter(bool)


def is_hub_on(values: Mapping[str, Any]) -> bool:
    """Tell whether values that are not validated yet switch the hub on."""
    try:
        return _BOOL.validate_python(values.get(HUB, False))
    except ValidationError:
        return False


def hub_faults(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each offer of nodes while the hub is off."""
    for offer in settings.offers:
        if offer.backend == HUB and not settings.hub:
            place = offer.place or "OLLAMA_PROXY_BACKEND"
            yield (
                f"{place}: the backend {HUB!r} needs the hub, where machines register;"
                f" set {_SWITCH}=true"
            )


def hub_notices(settings: Settings, unused: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each thing that is set and not used.

    ``unused``: for each backend that a setting of its own would select, that setting.
    """
    if not settings.hub:
        own = settings.of_backends.get(HUB)
        if own is not None and own.model_fields_set and not settings.selection.offered:
            yield (
                f"OLLAMA_PROXY_HUB_LABELS: the hub is off, so this is not used; set"
                f" {_SWITCH}=true to have machines register here"
            )
        return
    if all(offer.backend != HUB for offer in settings.offers):
        yield (
            f"{_SWITCH}: no offer has the backend {HUB!r}, so no request goes to a"
            f' node; add [offers.house] with backend = "{HUB}"'
        )
    if settings.selection.backend == HUB:
        for name, where in unused.items():
            yield (
                f"{where}: the hub is on and no other backend is named, so this is not"
                " used; to use it when its nodes are full set"
                f" OLLAMA_PROXY_BACKEND={name}"
            )
