"""Check that the zones of the settings exist: an unknown one has no API to say so.

Each zone has a host of its own, so a call to a zone that there is none of ends as any
broken connection does, and would be repeated. Another zone's API lists them all.
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
"""Those of the published description of the API (SDK 0.16.4): no API is asked."""

_ASKED = ("at-vie-2", "ch-gva-2")


class Zones:
    """Lists the zones that may hold something of ours, less those that do not exist.

    ``noted`` are those in which something was bought, besides the settings'.
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
        """Return what is wrong with a zone of the settings that does not exist.

        If no answer lists them, the later calls will show which do not exist.
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
