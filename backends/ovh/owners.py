"""List and delete what any deployment of this product has in a project."""

from collections.abc import Collection

import structlog

from ollama_proxy.backends.base.owners import CloudOwners
from ollama_proxy.backends.ovh.apps import App
from ollama_proxy.backends.ovh.cloud import OvhCloud
from ollama_proxy.base import log
from ollama_proxy.base.errors import CredentialsError
from ollama_proxy.fleet.backend import Belonging
from ollama_proxy.fleet.owners import date_in


class Owners(CloudOwners[App]):
    """Sees and deletes the apps that carry our product's label."""

    def __init__(
        self,
        cloud: OvhCloud,
        *,
        configured: Collection[str],
        per_hour: float | None,
    ) -> None:
        super().__init__(cloud)
        self._configured = configured
        self._per_hour = per_hour

    async def belongings(self) -> list[Belonging]:
        """Return the apps of all known regions.

        A former region that is not in the settings any more and has no token is
        skipped, and logged.
        """
        found: dict[str, Belonging] = {}
        for region in self._cloud.locations():
            try:
                apps = await self._cloud.list(region)
            except CredentialsError as error:
                if region in self._configured:
                    raise
                structlog.get_logger().warning(
                    log.SWEEP_FAILED, region=region, error=str(error)
                )
                continue
            for app in apps:
                if app.is_made_by_us and not app.is_leaving:
                    found.setdefault(app.id, self.belonging(region, app))
        return list(found.values())

    def belonging(self, region: str, app: App) -> Belonging:
        """Return an app as a `Belonging`."""
        runs = not app.is_stopped
        return Belonging(
            f"{region} {app.id}",
            f"app {app.id} in {region}, {app.flavor}",
            app.tag("owner") or "",
            app.state.lower(),
            launch_id=app.launch,
            runs=runs,
            made_at=date_in(app.created_at),
            lease_end=app.lease_end,
            per_hour=self._per_hour if runs else 0.0,
        )

    async def _delete(self, location: str, resource: App) -> bool:
        """Request an app's deletion; only the next look shows the end."""
        await super()._delete(location, resource)
        return False
