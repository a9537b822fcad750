"""Check that the zones of the settings exist.

Each zone has a host of its own. A call to a zone that does not exist ends like any
broken connection, and would be repeated. So another zone's API is asked for the list of
all zones.
"""

from collections.abc import Callable, Collection

from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.base.errors import BackendError, SpecError

_KNOWN = frozenset(
    {
        "at-vie-1",
        "at-vie-2",
        "bg-sof-1",
        "ch-dk-2",
        "ch-gva-2",
        "de-fra-1",
        "de-muc-1",
        "hr-zag-1",
    }
)
"""Zones in the published description of the API (SDK 0.16.4): no look-up is needed."""

_ASKED = ("at-vie-2", "ch-gva-2")


class Zones:
    """Lists the zones that may hold something of ours, without those that do not exist.

    ``noted``: zones in which something was bought, besides those of the settings.
    """

    def __init__(
        self,
        settings: ExoscaleSettings,
        noted: Callable[[], Collection[str]],
        api_of: Callable[[str], ExoscaleApi],
    ) -> None:
        self._api_of = api_of
        self._configured = (settings.zone, *settings.fallback_zones)
        self._noted = noted
        self._absent: frozenset[str] = frozenset()
        self._sure = _KNOWN
        self._told = ""
        endpoint = settings.api_endpoint
        self._has_host_each = endpoint is None or "{zone}" in endpoint

    def every(self) -> list[str]:
        """Return the settings' zones first, but for those that are known not to be."""
        zones = dict.fromkeys((*self._configured, *sorted(self._noted())))
        return [zone for zone in zones if zone not in self._absent]

    async def problem(self) -> SpecError | None:
        """Return the error for a zone of the settings that does not exist.

        If no list is available, the later calls will show which zones do not exist.
        """
        unsure = frozenset(self.every()) - self._sure
        if unsure and self._has_host_each and (names := await self._names()):
            self._absent |= unsure - names
            self._sure |= unsure & names
            self._told = ", ".join(sorted(names))
        for zone in self._configured:
            if zone in self._absent:
                return SpecError(
                    "EXOSCALE_ZONE or EXOSCALE_FALLBACK_ZONES: there is no zone "
                    f"{zone!r}; there are: {self._told}"
                )
        return None

    async def check(self) -> None:
        """Raise the `problem`, if there is one."""
        if (problem := await self.problem()) is not None:
            raise problem

    async def _names(self) -> frozenset[str]:
        for zone in _ASKED:
            try:
                if names := await self._api_of(zone).zone_names():
                    return frozenset(names)
            except BackendError:
                continue
        return frozenset()
