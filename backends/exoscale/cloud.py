"""Exoscale as a `Cloud`: instances by zone, each call through the zone's API."""

from collections.abc import Callable, Mapping

from ollama_proxy.backends.base.cloud import Assessment, StateContext
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.instances import (
    TAGS,
    Instance,
    read_instance,
    read_instances,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.upstream.certificates import Authority

USELESS = {
    "error": "Exoscale reports an error of the instance",
    "stopped": "the instance was powered off",
    "stopping": "the instance is being powered off",
    "destroying": "the instance is being destroyed",
    "expunging": "the instance is being destroyed",
}
"""States in which an instance will never serve, in words."""


class ExoscaleCloud:
    """Speaks to the zones of one organisation. ``zones`` names those with instances."""

    def __init__(
        self,
        *,
        authority: Authority,
        zones: Callable[[], list[str]],
        api_of: Callable[[str], ExoscaleApi],
        port: int,
    ) -> None:
        self._authority = authority
        self._api_of = api_of
        self._apis: dict[str, ExoscaleApi] = {}
        self._port = port
        self.locations = zones

    def api(self, zone: str) -> ExoscaleApi:
        """Return the API of a zone."""
        if zone not in self._apis:
            self._apis[zone] = self._api_of(zone)
        return self._apis[zone]

    async def list(self, location: str) -> list[Instance]:
        """Return the instances of a zone."""
        return read_instances(await self.api(location).call("list_instances"))

    async def get(self, location: str, resource_id: str) -> Instance:
        """Return one instance."""
        answer = await self.api(location).call("get_instance", id=resource_id)
        return read_instance(answer)

    async def start(self, location: str, resource: Instance) -> None:
        """Start an instance that is stopped."""
        await self.api(location).call("start_instance", id=resource.id)

    async def stop(self, location: str, resource: Instance) -> None:
        """Stop an instance; its disk is paid for still."""
        await self.api(location).call("stop_instance", id=resource.id)

    async def delete(self, location: str, resource: Instance) -> None:
        """Delete an instance, with its disk."""
        await self.api(location).call("delete_instance", id=resource.id)

    async def tag(
        self, location: str, resource: Instance, tags: Mapping[str, str]
    ) -> None:
        """Set labels; an update wants the whole map of them."""
        labels = resource.labels | TAGS.spelt(tags)
        api = self.api(location)
        await api.call("update_instance", id=resource.id, labels=labels)

    def assess(
        self, resource: Instance, context: StateContext
    ) -> tuple[Assessment, str]:
        """Return the assessment of an instance, and the reason.

        Treat unknown states as pending: the instance exists and is billed.
        """
        is_standby = context.standby and resource.is_stopped
        if is_standby or (resource.state == "destroyed" and context.served):
            return Assessment.GONE, resource.state
        useless = USELESS.get(resource.state)
        if useless is not None or resource.state == "destroyed":
            return Assessment.FAILED, useless or resource.state
        return Assessment.MAYBE_READY, resource.state  # its guard decides

    def endpoint(
        self, location: str, resource: Instance, identity: str | None
    ) -> Upstream | None:
        """Return where an instance's guard listens; its certificate names a launch."""
        host = resource.public_ip
        if resource.state != "running" or not host or identity is None:
            return None
        address = f"[{host}]" if ":" in host else host
        url = f"https://{address}:{self._port}"
        return Upstream(url, self._authority.link(LaunchId(identity)))

    async def aclose(self) -> None:
        """Close the connections to every zone."""
        for api in self._apis.values():
            api.close()
