"""Read which of Fly's regions are meant, and check that they exist."""

from typing import Any

from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.base.errors import SpecError


def regions_in_words(known: list[dict[str, Any]], settings: FlySettings) -> str:
    """Return the configured regions in words; raises `SpecError` for an unknown one.

    ``known``: every region of Fly, from its API.
    """
    there = {str(one.get("code")): one for one in known if not one.get("deprecated")}
    for region in settings.regions:
        if region not in there:
            is_first = region == settings.region
            name = "FLY_MACHINE_REGION" if is_first else "FLY_FALLBACK_REGIONS"
            names = ", ".join(sorted(there))
            raise SpecError(f"{name}: there is no region {region!r}; regions: {names}")
    paid = [one for one in settings.regions if there[one].get("requires_paid_plan")]
    told = f"; {', '.join(paid)} want a paid plan" if paid else ""
    return f"{', '.join(settings.regions)}{told}"
