"""Point at a server that somebody else manages: never started, never stopped."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import aiohttp

from ollama_proxy.backends.static_access import URL, access_link
from ollama_proxy.backends.static_settings import StaticSettings, static_faults
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.base.fields import BackendSettings, is_given
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import (
    BackendContext,
    Finding,
    Observation,
    Phase,
    Traits,
    Upstream,
)
from ollama_proxy.fleet.backend_plugin import BackendPlugin
from ollama_proxy.fleet.connect_faults import ConnectFault
from ollama_proxy.fleet.readiness import HttpProbe
from ollama_proxy.upstream.endpoint import Link
from ollama_proxy.upstream.loop_mark import LoopMark

_LOOKS = 3


class StaticBackend:
    """Points every launch at one URL, which may be that of a gateway before Ollama."""

    def __init__(
        self,
        url: str,
        *,
        is_gateway: bool = False,
        link: Link | None = None,
        mark: LoopMark | None = None,
    ) -> None:
        self._upstream = Upstream(url, link, is_gateway, URL)
        self._mark = mark
        self._launches: set[LaunchId] = set()
        self.traits = Traits(
            externally_managed=True,
            persistent_models=True,
            models_place=url,
            poll_s=1.0,
            watch_s=60.0,
        )

    async def start(self, launch_id: LaunchId) -> None:
        """Remember the launch; there is nothing to create."""
        self._launches.add(launch_id)

    async def inspect(self, launch_id: LaunchId) -> Observation:
        """Return the URL for a launch that was started and not stopped."""
        if launch_id not in self._launches:
            return Observation(Phase.GONE)
        return Observation(Phase.RUNNING, self._upstream)

    async def stop(self, launch_id: LaunchId) -> None:
        """Forget the launch; the server stays as it is."""
        self._launches.discard(launch_id)

    async def owned(self) -> Collection[LaunchId]:
        """Return the launches of this process: a URL carries no tag."""
        return frozenset(self._launches)

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""

    async def check(self) -> list[Finding]:
        """Ask the URL as a launch does; one that is slow is asked again."""
        fault: ConnectFault | None = None
        async with aiohttp.ClientSession() as session:
            probe = HttpProbe(session, mark=self._mark)
            for _ in range(_LOOKS):
                fault = await probe.look(self._upstream)
                if fault is None or not fault.passes:
                    break
        detail = self._upstream.url if fault is None else fault.message
        return [Finding("upstream", ok=fault is None, detail=detail)]


def open_backend(context: BackendContext) -> StaticBackend:
    """Build the backend from its settings."""
    settings = context.settings_of(StaticSettings)
    if settings.upstream_url is None:
        raise SettingsError([f"{URL}: the backend 'static' needs a server's URL"])
    return StaticBackend(
        settings.upstream_url.url,
        is_gateway=settings.upstream_is_gateway,
        link=access_link(settings),
        mark=LoopMark(context.owner_id),
    )


def _url(_kind: type[BackendSettings], given: Mapping[str, Any]) -> Sequence[str]:
    return ("upstream_url",) if is_given(given, "upstream_url") else ()


def _resource_names(settings: StaticSettings) -> dict[str, str]:
    url = settings.upstream_url
    return {} if url is None else {f"server {url.url!r}": "upstream_url"}


PLUGIN = BackendPlugin(
    "static",
    StaticSettings,
    open_backend,
    is_meant=_url,
    faults=static_faults,
    has_table=False,
    resource_names=_resource_names,
    makes_instances=False,
)
