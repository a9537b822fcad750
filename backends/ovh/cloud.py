"""AI Deploy as a `Cloud`: apps by region, each call through the region's driver."""

from collections.abc import Callable, Mapping

from ollama_proxy.backends.base.cloud import Assessment, StateContext
from ollama_proxy.backends.ovh.apps import TAGS, App
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.backends.ovh.states import assess
from ollama_proxy.base.errors import ConflictError, CredentialsError
from ollama_proxy.core.http.headers import GUARD_TOKEN
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.upstream.certificates import Authority
from ollama_proxy.upstream.endpoint import Link


class OvhCloud:
    """Speaks to the regions of one project. ``regions`` names those that have apps."""

    def __init__(
        self,
        settings: OvhSettings,
        *,
        authority: Authority,
        regions: Callable[[], list[str]],
        driver_of: Callable[[str], Driver],
    ) -> None:
        self._settings = settings
        self._authority = authority
        self._driver_of = driver_of
        self._drivers: dict[str, Driver] = {}
        self.locations = regions

    def driver(self, region: str) -> Driver:
        """Return the driver of a region."""
        if region not in self._drivers:
            self._drivers[region] = self._driver_of(region)
        return self._drivers[region]

    async def list(self, location: str) -> list[App]:
        """Return every app that the credentials show in a region."""
        return await self.driver(location).apps()

    async def get(self, location: str, resource_id: str) -> App:
        """Return one app."""
        return await self.driver(location).app(resource_id)

    async def start(self, location: str, resource: App) -> None:
        """Start an app that is stopped; it may be asked for twice."""
        await self.driver(location).start(resource.id)

    async def stop(self, location: str, resource: App) -> None:
        """Ask for an app to stop."""
        await self.driver(location).stop(resource.id)

    async def delete(self, location: str, resource: App) -> None:
        """Delete an app; one whose state does not allow it is stopped first."""
        driver = self.driver(location)
        try:
            await driver.delete(resource.id, force=resource.state != "STOPPED")
        except ConflictError:
            await driver.stop(resource.id)

    async def tag(self, location: str, resource: App, tags: Mapping[str, str]) -> None:
        """Set labels, each by a call of its own."""
        for name, value in TAGS.spelt(tags).items():
            await self.driver(location).label(resource.id, name, value)

    def assess(self, resource: App, context: StateContext) -> tuple[Assessment, str]:
        """Return what to think of an app, and why."""
        return assess(resource, context, self._settings.queue_timeout)

    def endpoint(
        self, location: str, resource: App, identity: str | None
    ) -> Upstream | None:
        """Return where an app is reached; the gateway's token goes over TLS alone."""
        url = (resource.status.url or "").rstrip("/")
        private = (self._settings.api_url or "").startswith("http://")
        if not (url.startswith("https://") or (url and private)):
            return None
        return Upstream(url, self._link(location, identity))

    def _link(self, region: str, identity: str | None) -> Link:
        """Return the link to an app: the gateway's token, and its guard's own."""
        token = self._settings.url_token(region)
        if token is None:
            raise CredentialsError(f"there is no token for {region}")
        headers = {}
        if identity:
            headers[GUARD_TOKEN] = self._authority.token(LaunchId(identity))
        setting = self._settings.url_token_setting(region)
        return Link(token, headers=headers, is_marked=True, settings=(setting,))

    async def aclose(self) -> None:
        """Close every driver."""
        for driver in self._drivers.values():
            await driver.aclose()
