"""List every app of a deployment, in every region, and end apps."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from ollama_proxy.backends.attempts import Attempts
from ollama_proxy.backends.ovh.apps import (
    LEAVING,
    App,
    OwnershipTags,
    described,
    is_made_by_us,
    launch_of,
    oldest_first,
)
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.backends.sightings import Sightings
from ollama_proxy.base import log
from ollama_proxy.base.errors import (
    BackendError,
    ConflictError,
    NotFoundError,
    TransientError,
)
from ollama_proxy.core.lifecycle.record import LaunchId

_DELETION_S = 900.0

Found = tuple[str, App]
"""An app, after the region in which it is."""


class AppInventory:
    """Lists the apps of one owner. ``regions`` names where there may be any.

    ``attempts`` remembers which were shown, for what a list lacks.
    """

    def __init__(
        self,
        labels: OwnershipTags,
        *,
        regions: Callable[[], list[str]],
        driver_of: Callable[[str], Driver],
        attempts: Attempts,
    ) -> None:
        self._labels = labels
        self._regions = regions
        self._driver_of = driver_of
        self._drivers: dict[str, Driver] = {}
        self._sightings = Sightings[App](
            attempts.shown(),
            ask=self._ask,
            is_over=self._is_over,
            save=attempts.note_shown,
        )
        self._log = structlog.get_logger()

    def driver(self, region: str) -> Driver:
        """Return the driver of a region."""
        if region not in self._drivers:
            self._drivers[region] = self._driver_of(region)
        return self._drivers[region]

    async def aclose(self) -> None:
        """Close every driver."""
        for driver in self._drivers.values():
            await driver.aclose()

    async def in_region(self, region: str) -> list[App]:
        """Return our apps of a region that are not leaving, the oldest first.

        One that the list lacks, and that was shown before, is asked for by its id.
        """
        apps = await self.driver(region).apps()
        ours = [app for app in apps if self._labels.is_ours(app)]
        return oldest_first(await self._sightings.complete(region, ours))

    async def app(self, region: str, app_id: str) -> App:
        """Return one app, and remember it."""
        app = await self._ask(region, app_id)
        self._sightings.note(region, app)
        return app

    async def _ask(self, region: str, app_id: str) -> App:
        return await self.driver(region).app(app_id)

    def _is_over(self, app: App) -> bool:
        return app.state in LEAVING or not self._labels.is_ours(app)

    async def everything(
        self, *, surely: str | None = None, strictly: bool = False
    ) -> list[Found]:
        """Return our apps of all regions that can be asked.

        One that can't be is passed over, with a word in the log, unless it is the
        region ``surely``, or none can, or it is looked for ``strictly``.
        """
        found: dict[str, Found] = {}
        failures: list[BackendError] = []
        regions = self._regions()
        for region in regions:
            try:
                for app in await self.in_region(region):
                    found.setdefault(app.id, (region, app))
            except BackendError as error:
                if strictly or region == surely:
                    raise
                failures.append(error)
                self._log.warning(log.SWEEP_FAILED, region=region, error=str(error))
        if failures and len(failures) == len(regions):
            raise failures[0]
        return list(found.values())

    async def of_launch(
        self, launch_id: LaunchId, *, surely: str | None = None
    ) -> list[Found]:
        """Return the apps that carry a launch's label, as `everything` does."""
        everything = await self.everything(surely=surely)
        return [
            (region, app) for region, app in everything if launch_of(app) == launch_id
        ]

    async def leaving(self) -> list[Found]:
        """Return our apps that are being deleted; raises if a region is silent."""
        return [
            (region, app)
            for region in self._regions()
            for app in await self.driver(region).apps()
            if self._labels.is_ours(app) and app.state == "DELETING"
        ]

    async def end(
        self, region: str, app: App, *, keep: bool, again: bool = False
    ) -> None:
        """Stop an app that is kept; delete any other, which kills what runs.

        ``again``: it is stopped even if it is shown as stopped, for it was just
        started. What has failed, and may still run something, is never kept.
        """
        if not self._labels.is_ours(app):
            raise TransientError(
                f"the app {app.id} in {region} does not carry our labels any more, so"
                " it is left alone; delete it in the control panel"
            )
        if app.state == "ERROR":
            self._log.error(log.INSTANCE_BROKEN, instance=app.id, error=app.why())
        with contextlib.suppress(NotFoundError):
            is_lost = app.state == "ERROR" or (
                app.state == "FAILED" and not app.is_resting
            )
            if is_lost or not keep:
                await self._delete(region, app)
            elif app.state == "FAILED" and app.is_resting:
                with contextlib.suppress(ConflictError):  # there is nothing to stop
                    await self.driver(region).stop(app.id)
            elif again or app.state not in LEAVING | {"STOPPING", "STOPPED"}:
                await self.driver(region).stop(app.id)

    async def _delete(self, region: str, app: App) -> None:
        """Delete an app; one whose state does not allow it is stopped first."""
        if app.state in LEAVING:
            return
        try:
            await self.driver(region).delete(app.id, force=app.state != "STOPPED")
        except ConflictError:
            await self.driver(region).stop(app.id)

    async def until_forgotten(
        self, region: str, app_id: str, *, pause_s: float
    ) -> None:
        """Wait until an app that was deleted is deleted, by its id.

        Raises `TransientError` after a quarter of an hour; a look that fails is
        repeated.
        """
        said = "it is being deleted"
        try:
            async with asyncio.timeout(_DELETION_S):
                # Hand-written: it ends only on the cloud's word, "deleted".
                while True:
                    try:
                        if (await self._ask(region, app_id)).state == "DELETED":
                            return
                    except NotFoundError:
                        return
                    except TransientError as error:
                        said = str(error)
                    await asyncio.sleep(pause_s)
        except TimeoutError:
            raise TransientError(
                f"the app {app_id} in {region} is not deleted after"
                f" {_DELETION_S:.0f} s ({said}); look into the control panel"
            ) from None

    async def sweep_expired(self, now: float, *, dry_run: bool) -> list[str]:
        """Stop each app of any deployment whose lease was over at ``now``."""
        swept: list[str] = []
        problem: BackendError | None = None
        for region in self._regions():
            try:
                expired = await self._expired_in(region, now)
            except BackendError as error:
                problem = error  # the other regions are swept all the same
                continue
            for app in expired:
                swept.append(described(region, app))
                try:
                    await self._end_expired(region, app, dry_run=dry_run)
                except BackendError as error:
                    problem = error  # and so are the other apps
        if problem is not None:
            raise problem
        return swept

    async def _end_expired(self, region: str, app: App, *, dry_run: bool) -> None:
        if dry_run:
            return
        with contextlib.suppress(NotFoundError):
            if app.state in {"FAILED", "ERROR"}:
                await self._delete(region, app)
            else:
                await self.driver(region).stop(app.id)

    async def _expired_in(self, region: str, now: float) -> list[App]:
        """Return apps of this product whose lease has expired."""
        free = LEAVING | {"STOPPING"}
        return [
            app
            for app in await self.driver(region).apps()
            if is_made_by_us(app) and not app.is_resting and app.state not in free
            if app.lease_end < now
        ]
