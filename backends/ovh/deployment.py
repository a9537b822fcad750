"""Make the app that launches start, once by `deploy`, and delete it by `delete`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from ollama_proxy.backends.base.inventory import Inventory
from ollama_proxy.backends.base.ownership_tags import OwnershipTags
from ollama_proxy.backends.base.provisioning_journal import ProvisioningJournal
from ollama_proxy.backends.ovh.apps import App, described
from ollama_proxy.backends.ovh.cloud import OvhCloud
from ollama_proxy.backends.ovh.namesakes import Namesakes, to_replace
from ollama_proxy.backends.ovh.provisioner import Provisioner
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import NotFoundError, SpecError, TransientError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Backend, Unchanged
from ollama_proxy.fleet.stop_until_gone import surely_gone, until_gone

_DEPLOYED = "deployed"
"""Prefix, before a time, of a launch by which `deploy` makes an app."""
_DELETION_S = 900.0


class Deployment:
    """Makes and deletes the app of a deployment, through its ``backend``.

    ``refuse_twins``: raises if a proxy on a copy of the state folder uses an app.
    ``note_image``: sets the image of further launches.
    """

    def __init__(
        self,
        settings: OvhSettings,
        *,
        tags: OwnershipTags,
        backend: Backend,
        cloud: OvhCloud,
        inventory: Inventory[App],
        journal: ProvisioningJournal,
        provisioner: Provisioner,
        refuse_twins: Callable[[list[tuple[str, App]]], None],
        note_image: Callable[[str | None], None],
        orphan_prefix: str,
        pause_s: float,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._tags = tags
        self._backend = backend
        self._cloud = cloud
        self._inventory = inventory
        self._journal = journal
        self._provisioner = provisioner
        self._refuse_twins = refuse_twins
        self._note_image = note_image
        self._orphan_prefix = orphan_prefix
        self._pause_s = pause_s
        self._clock = clock
        self._namesakes = Namesakes(
            tags, regions=settings.regions, driver_of=cloud.driver, pause_s=pause_s
        )

    async def deploy_over(
        self, image: str, names: Collection[str]
    ) -> AsyncIterator[str]:
        """Make the app that launches start, and stop it again; yield each step.

        Our other apps are deleted first, since each may be billed, and so are apps with
        our name that ``names`` lists; a bucket stays. The image is recorded before
        that: after any interruption the next launch makes its app of the new image.
        """
        await self._check(image)
        with self._provisioner.trying(image):
            found = await self._inventory.everything(strictly=True)
            self._refuse_twins(found)
            namesakes = to_replace(
                await self._namesakes.found(),
                name=self._settings.app_name,
                allowed=names,
                per_hour=self._settings.price_per_hour,
            )
            self._note_image(image)
            async for step in self._replaced(found):
                yield step
            for one in namesakes:
                async for step in self._namesakes.replaced(*one):
                    yield step
            for region, app in await self._inventory.everything(strictly=True):
                if self._fits(app):
                    yield Unchanged(f"{described(region, app)}: it is there already")
                    return
            yield f"an app is made of {image}, and stopped; until then it is billed"
            launch_id = LaunchId(f"{_DEPLOYED}{self._clock.now() * 1000.0:.0f}")
            try:
                await self._backend.start(launch_id)
            finally:
                await surely_gone(self._backend, launch_id)
        for line in await self.deployed():
            yield line

    def _fits(self, app: App) -> bool:
        """Tell whether an app is made as it is meant now."""
        return app.tag("spec") == self._provisioner.spec

    async def _replaced(self, found: list[tuple[str, App]]) -> AsyncIterator[str]:
        """Stop and delete each app that differs from the settings; yield each step.

        If the app of a launch is not known yet, wait for it: it may appear and be
        billed. A deployment that was killed has its app on no launch's record; that app
        is deleted here.
        """
        fitting = {app.id for _, app in found if self._fits(app)}
        for launch_id in sorted(self._journal.launches()):
            record = self._journal.get(launch_id)
            fits = record is not None and record.instance_id in fitting
            if not fits or launch_id.startswith(_DEPLOYED):
                yield f"stopping the app of launch {launch_id}"
                await until_gone(self._backend, launch_id)
        for region, app in found:
            if app.id not in fitting:
                yield f"deleting {described(region, app)}, of {app.spec.image}"
                await self._until_deleted(region, app)
        async for step in self._deleted_before():
            yield step

    async def _until_deleted(self, region: str, app: App) -> None:
        """Delete an app, and wait until its id is known no more."""
        await until_gone(self._backend, LaunchId(self._orphan_prefix + app.id))
        await self._until_forgotten(region, app)

    async def _deleted_before(self) -> AsyncIterator[str]:
        """Wait for apps that are being deleted already; yield each step.

        A command that was killed may have deleted them without waiting for the end.
        """
        for region in self._cloud.locations():
            for app in await self._cloud.list(region):
                if self._tags.is_ours(app) and app.state == "DELETING":
                    yield f"waiting for {described(region, app)}, to be deleted"
                    await self._until_forgotten(region, app)

    async def _until_forgotten(self, region: str, app: App) -> None:
        """Wait until a deleted app is gone, by its id.

        Raises `TransientError` after 15 minutes; a failed look is repeated.
        """
        said = "it is being deleted"
        try:
            async with asyncio.timeout(_DELETION_S):
                while True:
                    try:
                        seen = await self._cloud.get(region, app.id)
                        if seen.state == "DELETED":
                            return
                    except NotFoundError:
                        return
                    except TransientError as error:
                        said = str(error)
                    # A loop of its own instead of retries: only the cloud's "deleted"
                    # ends it.
                    await asyncio.sleep(self._pause_s)
        except TimeoutError:
            raise TransientError(
                f"the app {app.id} in {region} is not deleted after"
                f" {_DELETION_S:.0f} s ({said}); look into the control panel"
            ) from None

    async def _check(self, image: str) -> None:
        """Raise `SpecError` for what can't be deployed, before anything is made."""
        if self._settings.idle_action != "stop":
            raise SpecError(
                "OVH_IDLE_ACTION=delete makes an app per launch, so there is nothing to"
                " deploy; set OVH_IMAGE to the image"
            )
        if self._settings.image not in {None, image}:
            raise SpecError(
                f"OVH_IMAGE is {self._settings.image!r}, which launches would use and"
                f" not {image!r}; remove the setting, or deploy that image"
            )
        from ollama_proxy.backends.ovh.check import require  # noqa: PLC0415 - rare

        await require(self._cloud.driver, self._settings, image)

    async def remove(self) -> AsyncIterator[str]:
        """Stop and delete every app of this deployment; yield each step.

        Recorded launches are waited for, whatever the lists show. If a proxy on a copy
        of the state folder uses an app, the error names it and nothing is touched.
        """
        self._refuse_twins(await self._inventory.everything(strictly=True))
        for launch_id in sorted(self._journal.launches()):
            yield f"stopping the app of launch {launch_id}"
            await until_gone(self._backend, launch_id)
        for region, app in await self._inventory.everything(strictly=True):
            yield f"deleting {described(region, app)}"
            await self._until_deleted(region, app)
        async for step in self._deleted_before():
            yield step
        self._note_image(None)
        yield "nothing of this deployment is left"

    async def deployed(self) -> list[str]:
        """Return each app of this deployment, in words."""
        return [
            described(region, app) for region, app in await self._inventory.everything()
        ]
