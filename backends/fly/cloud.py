"""Fly as a `Cloud`: the machines of one app, each call through its API."""

from collections.abc import Mapping

from ollama_proxy.backends.base.cloud import Assessment, StateContext
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.failures import NoAppError
from ollama_proxy.backends.fly.machines import TAGS, Machine
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.backends.fly.states import assess
from ollama_proxy.base.errors import ConflictError, SpecError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.upstream.certificates import Authority
from ollama_proxy.upstream.endpoint import Link


class FlyCloud:
    """Calls the API of one app, the only location: it lists machines of all regions.

    ``missing``: the error of the last list, if the app did not exist.
    """

    def __init__(
        self, settings: FlySettings, *, api: FlyApi, authority: Authority
    ) -> None:
        self._settings = settings
        self._api = api
        self._authority = authority
        self.missing: NoAppError | None = None

    def locations(self) -> list[str]:
        """Return the app."""
        return [self._api.app]

    async def list(self, location: str) -> list[Machine]:
        """Return the machines of the app, ours or not; none without an app."""
        self.missing = None
        try:
            return await self._api.machines()
        except NoAppError as error:
            self.missing = error
            return []

    async def get(self, location: str, resource_id: str) -> Machine:
        """Return one machine."""
        return await self._api.machine(resource_id)

    async def start(self, location: str, resource: Machine) -> None:
        """Start a machine that is stopped."""
        async with self._api.machine_lock(resource.id) as nonce:
            await self._api.start(resource.id, nonce)

    async def stop(self, location: str, resource: Machine) -> None:
        """Suspend a machine if that is wanted and possible, else stop it."""
        async with self._api.machine_lock(resource.id) as nonce:
            if self._settings.idle_action == "suspend":
                try:
                    await self._api.suspend(resource.id, nonce)
                except (SpecError, ConflictError):
                    pass
                else:
                    return
            await self._api.stop(resource.id, nonce)

    async def delete(self, location: str, resource: Machine) -> None:
        """Destroy a machine; its volume stays."""
        async with self._api.machine_lock(resource.id) as nonce:
            await self._api.destroy(resource.id, nonce)

    async def tag(
        self, location: str, resource: Machine, tags: Mapping[str, str]
    ) -> None:
        """Set metadata, each by a call of its own."""
        for name, value in TAGS.spelt(tags).items():
            await self._api.mark(resource.id, name, value)

    def assess(
        self, resource: Machine, context: StateContext
    ) -> tuple[Assessment, str]:
        """Return what to think of a machine, and why."""
        return assess(resource, context)

    def endpoint(
        self, location: str, resource: Machine, identity: str | None
    ) -> Upstream | None:
        """Return where a machine is reached: Fly's edge, with a header for its id."""
        named = LaunchId(identity or resource.launch)
        link = Link(
            self._authority.token(named),
            headers={"fly-force-instance-id": resource.id},
            is_marked=True,
        )
        return Upstream(self._settings.url_of(resource.id), link)

    async def aclose(self) -> None:
        """Close connections."""
        await self._api.aclose()
