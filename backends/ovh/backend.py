"""Keep one app that is started and stopped, or make one per launch.

A standby app is only started, and a start can be repeated safely.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import replace

from ollama_proxy.backends.base.managed import ManagedBackend
from ollama_proxy.backends.base.ownership_tags import OwnershipTags
from ollama_proxy.backends.base.placement import Placement
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningJournal,
    ProvisioningRecord,
)
from ollama_proxy.backends.base.starting import Creation
from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.ovh.app_log import last_lines
from ollama_proxy.backends.ovh.apps import TAGS, App, described
from ollama_proxy.backends.ovh.cloud import OvhCloud
from ollama_proxy.backends.ovh.deployment import Deployment
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.backends.ovh.order import SCALE_DOWN_S
from ollama_proxy.backends.ovh.owners import Owners
from ollama_proxy.backends.ovh.provisioner import Provisioner
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.backends.ovh.traits import traits_of
from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import ConflictError, NotFoundError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import (
    Belonging,
    Finding,
    Observation,
    Phase,
    Prices,
)
from ollama_proxy.fleet.offer_tag import OfferTag
from ollama_proxy.fleet.reports import secrets_in
from ollama_proxy.upstream.certificates import Authority


class OvhBackend(ManagedBackend[App, Owners]):
    """Runs the apps of one deployment. ``driver_of`` opens a region's driver."""

    noun = "app"
    orphan_prefix = "app-"
    tags_noun = "labels"
    deleted_by = "delete it in the control panel"
    passes_over_locations = True  # a former region may have no token any more

    def __init__(
        self,
        settings: OvhSettings,
        *,
        owner_id: str,
        remembers: Callable[[LaunchId], bool],
        journal: ProvisioningJournal,
        authority: Authority,
        clock: Clock,
        driver_of: Callable[[str], Driver],
        max_lifetime_s: float | None,
        poll_s: float,
        timing: CloudTiming = STANDARD,
        environment: Mapping[str, str] | None = None,
        offer: OfferTag | None = None,
    ) -> None:
        self._settings = settings
        self._authority = authority
        self._ovh = OvhCloud(
            settings, authority=authority, regions=self.regions, driver_of=driver_of
        )
        tags = OwnershipTags(owner_id, TAGS, offer)
        super().__init__(
            self._ovh,
            Owners(
                self._ovh,
                configured=settings.regions,
                per_hour=settings.price_per_hour,
            ),
            tags=tags,
            remembers=remembers,
            journal=journal,
            clock=clock,
            uses_standby=settings.idle_action == "stop",
            lease_s=settings.lease,
            timing=timing,
        )
        self._provisioner = Provisioner(
            settings,
            tags=tags,
            journal=journal,
            authority=authority,
            clock=clock,
            driver_of=self._ovh.driver,
            max_lifetime_s=max_lifetime_s,
            environment=environment,
        )
        self._deployment = Deployment(
            settings,
            tags=tags,
            backend=self,
            cloud=self._ovh,
            inventory=self._inventory,
            journal=journal,
            provisioner=self._provisioner,
            refuse_twins=self._refuse_twins_of,
            note_image=self._note_image,
            orphan_prefix=self.orphan_prefix,
            pause_s=poll_s,
            clock=clock,
        )
        self._reported: set[LaunchId] = set()
        self.traits = traits_of(settings, self._provisioner, poll_s=poll_s)

    def _note_image(self, image: str | None) -> None:
        """Have launches make their app of another image from now on."""
        self._journal.note(image=image)
        self.traits = traits_of(
            self._settings, self._provisioner, poll_s=self.traits.poll_s
        )

    def regions(self) -> list[str]:
        """Return every region in which there may be something of ours."""
        used = self._journal.book.locations
        return [*dict.fromkeys([*self._settings.regions, *used])]

    def _placements(self) -> list[Placement]:
        return [Placement(region) for region in self._settings.regions]

    async def _creation(self, launch_id: LaunchId, placement: Placement) -> Creation:
        return await self._provisioner.creation(launch_id, placement.location)

    async def _all_belongings(self) -> list[Belonging]:
        return self._belonging(await self._inventory.everything())

    def _belonging(self, found: list[tuple[str, App]]) -> list[Belonging]:
        return [self._owners.belonging(*one) for one in found]

    def _refuse_twins_of(self, found: list[tuple[str, App]]) -> None:
        self._refuse_twins(self._belonging(found))

    def _described(self, location: str, resource: App) -> str:
        return described(location, resource)

    async def _take_standby(self, launch_id: LaunchId) -> bool:
        """Take the app that stands by; False if there is none."""
        if (standby := await self._standby_app()) is None:
            return False
        region, app = standby
        identity = app.tag("identity")
        record = ProvisioningRecord(
            region, instance_id=app.id, identity=identity, seen=True
        )
        self._journal.put(launch_id, record)
        await self._run(launch_id, region, app)
        return True

    async def _standby_app(self) -> tuple[str, App] | None:
        """Return the app that stands by, and its region.

        An app in a region that recently had no room is skipped if one can be made in
        another region.
        """
        if not self._uses_standby:
            return None
        standby: dict[str, App] = {}
        found = await self._inventory.everything(surely=self._settings.region)
        used = self._journal.instance_ids()  # after the call: launches run in parallel
        for region, app in found:
            if self._is_standby(app) and app.id not in used:
                standby.setdefault(region, app)
        placements = self._room.in_order(self._placements())
        is_full_everywhere = all(self._room.is_full(one) for one in placements)
        for placement in placements:
            if self._room.is_full(placement) and not is_full_everywhere:
                return None
            if placement.location in standby:
                return placement.location, standby[placement.location]
        return None

    def _is_standby(self, resource: App) -> bool:
        """Tell whether an app may be started again: it is stopped, and as meant."""
        fits = resource.tag("spec") == self._provisioner.spec
        return super()._is_standby(resource) and fits

    async def _inspect_lost(
        self, launch_id: LaunchId, record: ProvisioningRecord
    ) -> Observation:
        was_wanted = launch_id not in self._told_to_stop
        gone = self._forgotten(launch_id)
        report = "the app is gone, so nothing of its own log could be fetched"
        return replace(gone, report=report) if was_wanted else gone

    async def _failed(
        self, launch_id: LaunchId, record: ProvisioningRecord, resource: App, why: str
    ) -> Observation:
        """Tell of a failed app, once with the end of its log: then it is stopped."""
        report = ""
        if launch_id not in self._told_to_stop | self._reported:
            self._reported.add(launch_id)
            secrets = secrets_in(self._settings)
            if record.identity:
                secrets.add(self._authority.token(LaunchId(record.identity)))
            driver = self._ovh.driver(record.location)
            report = await last_lines(
                driver, resource.id, secrets, timeout_s=self._timing.app_log_s
            )
        return Observation(Phase.FAILED, detail=why, report=report)

    def _forgotten(self, launch_id: LaunchId) -> Observation:
        self._reported.discard(launch_id)
        return super()._forgotten(launch_id)

    async def _end(
        self, location: str, resource: App, *, standby: bool, again: bool = False
    ) -> None:
        """Stop or delete as for any cloud, except a failed app.

        A failed app that may still run something is deleted, and never stands by. If
        nothing of it runs, a stop makes the platform count it as stopped; the platform
        may refuse that call.
        """
        if resource.state == "ERROR":
            why = resource.why()
            self._log.error(log.INSTANCE_BROKEN, instance=resource.id, error=why)
        if standby and resource.state in {"ERROR", "FAILED"}:
            if resource.is_stopped:
                self._refuse_foreign(location, resource)
                with contextlib.suppress(ConflictError, NotFoundError):
                    await self._cloud.stop(location, resource)
                return
            standby = False
        await super()._end(location, resource, standby=standby, again=again)

    def _is_expired(self, resource: App) -> bool:
        return not resource.is_stopping and super()._is_expired(resource)

    async def _end_expired(self, location: str, resource: App) -> None:
        if resource.state in {"FAILED", "ERROR"}:
            await self._cloud.delete(location, resource)
        else:
            await self._cloud.stop(location, resource)

    @property
    def prices(self) -> Prices:
        """Return what the app costs, by the settings; a stopped one is free."""
        return Prices(self._settings.price_per_hour, self._standby_count, 0.0)

    @property
    def unattended_s(self) -> float | None:
        """Return how long at most an app runs without a renewal: see `Order`.

        Not tried on a live account.
        """
        if self._settings.dead_man == "off":
            return None
        return self._settings.dead_man_timeout + SCALE_DOWN_S

    def deploy(self, image: str) -> AsyncIterator[str]:
        """Do as `deploy_over` does; delete nothing that is not ours."""
        return self.deploy_over(image, ())

    def deploy_over(self, image: str, names: Collection[str]) -> AsyncIterator[str]:
        """Make the app that launches start, and stop it again; tell each step."""
        return self._deployment.deploy_over(image, names)

    def remove(self) -> AsyncIterator[str]:
        """Stop and delete every app of this deployment; tell each step."""
        return self._deployment.remove()

    async def deployed(self) -> list[str]:
        """Return each app of this deployment, in words."""
        return await self._deployment.deployed()

    async def check(self) -> list[Finding]:
        """Examine log-in, region, quota, flavour, image and volume; make nothing."""
        from ollama_proxy.backends.ovh.check import examine  # noqa: PLC0415 - rare

        image = self._provisioner.image
        return await examine(self._ovh.driver, self._settings, image=image)
