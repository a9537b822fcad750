"""List and delete what any deployment of this product has in a project."""

import contextlib
from collections.abc import Callable, Collection

import structlog

from ollama_proxy.backends.ovh.apps import TAGS, App
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.base import log
from ollama_proxy.base.errors import ConflictError, CredentialsError, NotFoundError
from ollama_proxy.fleet.backend import Belonging
from ollama_proxy.fleet.owners import date_in


class Owners:
    """Sees and deletes the apps that carry our product's label."""

    def __init__(
        self,
        *,
        regions: Callable[[], list[str]],
        configured: Collection[str],
        driver_of: Callable[[str], Driver],
        per_hour: float | None,
    ) -> None:
        self._regions = regions
        self._configured = configured
        self._driver_of = driver_of
        self._per_hour = per_hour

    async def belongings(self) -> list[Belonging]:
        """Return the apps of all regions that are known.

        One of before, that the settings have no more and that has no token now, is
        passed over with a word in the log.
        """
        found: dict[str, Belonging] = {}
        for region in self._regions():
            try:
                apps = await self._driver_of(region).apps()
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
        """Return an app as what belongs to somebody."""
        runs = not app.is_resting
        flavor = (app.spec.resources or {}).get("flavor", "flavour unknown")
        return Belonging(
            f"{region} {app.id}",
            f"app {app.id} in {region}, {flavor}",
            app.tag("owner") or "",
            app.state.lower(),
            launch_id=app.launch,
            runs=runs,
            made_at=date_in(app.created_at),
            lease_end=app.lease_end,
            per_hour=self._per_hour if runs else 0.0,
        )

    async def discard(self, one: Belonging) -> bool:
        """Go one step towards its deletion; True once it is deleted."""
        app = await self._still_theirs(one)
        if app is None:
            return True
        region, _, app_id = one.id.partition(" ")
        driver = self._driver_of(region)
        with contextlib.suppress(NotFoundError):
            try:
                await driver.delete(app_id, force=app.state != "STOPPED")
            except ConflictError:  # its state does not allow it: it is stopped first
                await driver.stop(app_id)
        return False

    async def estrange(self, one: Belonging) -> None:
        """Have an app fit no launch: the next sweep deletes it."""
        if await self._still_theirs(one) is not None:
            region, _, app_id = one.id.partition(" ")
            driver = self._driver_of(region)
            for name, value in TAGS.spelt({"spec": "adopted"}).items():
                await driver.label(app_id, name, value)

    async def _still_theirs(self, one: Belonging) -> App | None:
        """Return an app as its region shows it now, if it is that owner's."""
        region, _, app_id = one.id.partition(" ")
        try:
            app = await self._driver_of(region).app(app_id)
        except NotFoundError:
            return None
        is_theirs = app.is_made_by_us and app.tag("owner") == one.owner_id
        return app if is_theirs and not app.is_leaving else None
