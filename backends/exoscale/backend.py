"""Map each launch to one instance, bought once and deleted for certain.

The create call has no idempotency key. So the purchase is recorded before the call.
After a lost answer the instance is looked for by its labels, until the call can't be
executed any more.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping

from ollama_proxy.backends.base.ownership_tags import OwnershipTags
from ollama_proxy.backends.base.placement import Placement
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningJournal,
    ProvisioningRecord,
)
from ollama_proxy.backends.base.reservations import reserving
from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.cloud import ExoscaleCloud
from ollama_proxy.backends.exoscale.firewall import Firewall
from ollama_proxy.backends.exoscale.instances import TAGS, Instance
from ollama_proxy.backends.exoscale.looking import ExoscaleLooks
from ollama_proxy.backends.exoscale.owners import Owners
from ollama_proxy.backends.exoscale.provisioner import Provisioner
from ollama_proxy.backends.exoscale.security_group import group_name, remove_group
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.backends.exoscale.standby import Standby
from ollama_proxy.backends.exoscale.traits import traits_of
from ollama_proxy.backends.exoscale.zones import Zones
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    StoreError,
    TransientError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import (
    Belonging,
    Finding,
    Prices,
    Upstream,
)
from ollama_proxy.fleet.offer_tag import OfferTag
from ollama_proxy.upstream.certificates import Authority


class ExoscaleBackend(ExoscaleLooks):
    """Runs the instances of one deployment. ``api_of`` opens the API of a zone."""

    def __init__(
        self,
        settings: ExoscaleSettings,
        *,
        owner_id: str,
        remembers: Callable[[LaunchId], bool],
        journal: ProvisioningJournal,
        authority: Authority,
        clock: Clock,
        api_of: Callable[[str], ExoscaleApi],
        port: int,
        poll_s: float,
        models: Collection[str] = (),
        timing: CloudTiming = STANDARD,
        environment: Mapping[str, str] | None = None,
        offer: OfferTag | None = None,
    ) -> None:
        self._settings = settings
        self._environment = dict(environment or {})
        self._authority = authority
        self._exoscale = ExoscaleCloud(
            authority=authority, zones=self.zones, api_of=api_of, port=port
        )
        self._zones = Zones(
            settings, lambda: journal.book.locations, self._exoscale.api
        )
        tags = OwnershipTags(owner_id, TAGS, offer)
        super().__init__(
            self._exoscale,
            Owners(settings, cloud=self._exoscale),
            tags=tags,
            remembers=remembers,
            journal=journal,
            clock=clock,
            uses_standby=settings.idle_action == "stop",
            lease_s=settings.lease,
            timing=timing,
        )
        self._firewall = Firewall(
            owner_id, settings.allowed_cidr, clock, offer=tags.offer.name
        )
        self._standby = Standby(settings, clock=clock)
        self._provisioner = Provisioner(
            settings,
            tags=tags,
            firewall=self._firewall,
            journal=journal,
            authority=authority,
            clock=clock,
            api_of=self._exoscale.api,
            models=models,
            environment=self._environment,
        )
        self._groups_left: set[str] = set()
        self._being_taken: set[str] = set()
        self._ready: dict[LaunchId, Upstream] = {}
        self.traits = traits_of(settings, poll_s=poll_s)

    def zones(self) -> list[str]:
        """Return every zone in which there may be something of ours."""
        return self._zones.every()

    def _placements(self) -> list[Placement]:
        zones, types = self._settings.zones, self._settings.instance_types
        return [Placement(zone, name) for zone in zones for name in types]

    def _placement_of(self, location: str, resource: Instance) -> Placement:
        return Placement(location, self._settings.instance_type)

    async def _all_belongings(self) -> list[Belonging]:
        return await self._owners.instances()

    def _described(self, location: str, resource: Instance) -> str:
        return f"{resource.name} in {location} ({resource.state})"

    async def _check_start(self) -> None:
        await self._zones.check()

    async def _make(self, launch_id: LaunchId, placement: Placement) -> None:
        """Buy an instance; a rate-limited call is repeated, each attempt recorded."""
        await self._provisioner.make(launch_id, placement)

    async def _resume(self, launch_id: LaunchId, record: ProvisioningRecord) -> bool:
        """Start a stopped instance; a newly bought one starts by itself."""
        return record.identity is None or await super()._resume(launch_id, record)

    async def _resume_with(
        self, launch_id: LaunchId, record: ProvisioningRecord, resource: Instance
    ) -> bool:
        """Start a standby instance that this launch has taken.

        Raises `TransientError` while an instance that does not start is being deleted.
        """
        if record.identity is None:
            return True
        zone = record.location
        if not record.doomed:
            if resource.state != "stopped":
                return True
            if await self._standby.start(self._exoscale.api(zone), record):
                return True
            self._journal.update(launch_id, doomed=True)
        await self._end(zone, resource, standby=False)
        raise TransientError("a stopped instance that does not start is being deleted")

    async def _take_standby(self, launch_id: LaunchId) -> bool:
        """Take an instance that stands by; False if there is none that fits."""
        settings = self._settings
        types = settings.instance_types
        specs = {settings.spec_of(one, self._environment) for one in types}
        for zone in self.zones() if self._standby.is_open else ():
            for instance in await self._inventory.in_location(zone):
                fits = instance.tag("spec") in specs and instance.is_stopped
                used = self._journal.instance_ids() | self._being_taken
                if not fits or self._standby.is_over(instance) or instance.id in used:
                    continue
                record = await self._taken(launch_id, zone, instance)
                return await self._resume(launch_id, record)
        return False

    async def _taken(
        self, launch_id: LaunchId, zone: str, instance: Instance
    ) -> ProvisioningRecord:
        """Give a standby instance to a launch, and to none that runs in parallel."""
        with reserving(self._being_taken, instance.id):
            placement = Placement(zone, self._settings.instance_type)
            api = self._exoscale.api(zone)
            await self._firewall.ensure(api)
            record = await self._standby.wake(api, instance, launch_id, placement)
            self._journal.put(launch_id, record)
        return record

    async def stop(self, launch_id: LaunchId) -> None:
        """Delete all instances of a launch, or have it stand by; `inspect` shows it."""
        self._ready.pop(launch_id, None)
        await super().stop(launch_id)

    async def _stop(
        self, launch_id: LaunchId, record: ProvisioningRecord | None
    ) -> None:
        if record is not None and record.instance_id is not None:
            bought = await self._look(launch_id, record)
            if bought is not None and not bought.is_leaving:
                await self._stop_or_delete(launch_id, record, bought)
            return
        for zone, instance in await self._inventory.of_launch(launch_id):
            await self._end(zone, instance, standby=False)

    async def _stop_or_delete(
        self, launch_id: LaunchId, record: ProvisioningRecord, instance: Instance
    ) -> None:
        """Have an instance that served stand by, if it may; delete any other."""
        zone = record.location
        if record.standby and instance.is_stopped:
            return
        stands_by = self._standby.is_open and record.served
        if stands_by and instance.state in {"running", "stopping", "stopped"}:
            with contextlib.suppress(StoreError):  # if it can't be recorded, delete it
                if not record.standby:
                    record = self._journal.update(launch_id, standby=True, seen=True)
                api = self._exoscale.api(zone)
                if await self._standby.stop(api, instance, record, launch_id):
                    return
        await self._end(zone, instance, standby=False)

    async def owned(self) -> Collection[LaunchId]:
        """Name every launch that has an instance, in every zone.

        A standby instance belongs to no launch. It is named by its own id only if its
        time is over or it runs, and so is a second instance of a launch: these are
        stopped as strays, which deletes them. While a zone of the settings does not
        exist, an empty result is an error, since another zone was meant.
        """
        problem = await self._zones.problem()
        listed = await self._inventory.everything()
        found = [one for _, one in listed]
        self._standby.count(found)
        for zone, one in listed:
            if one.is_standby:
                await self._standby.measure(self._exoscale.api(zone), one)
        used = self._journal.instance_ids()
        standing_by = [one for one in found if one.is_standby]
        launched = [one for one in found if not one.is_standby]
        unwanted = [
            one
            for one in standing_by
            if self._standby.is_over(one) or one.state not in {"stopping", "stopped"}
        ]
        unwanted += [
            one for one in launched if self._journal.has_other(one.launch, one.id)
        ]
        strays = {self.orphan_prefix + one.id for one in unwanted if one.id not in used}
        launches = {one.launch for one in launched}
        if problem is not None and not launches | strays:
            raise problem
        return launches | {LaunchId(name) for name in strays}

    async def kept(self) -> list[str]:
        """Return each instance that stands by for the next launch, with its price."""
        return [
            self._standby.words(zone, one) for zone, one in await self._standby_ones()
        ]

    async def release(self, *, dry_run: bool) -> list[str]:
        """Delete standby instances before their time is over."""
        released = []
        for zone, one in await self._standby_ones():
            released.append(f"{one.name} in {zone} ({one.state})")
            if not dry_run:
                await self._end(zone, one, standby=False)
                self._standby.forget(one)
        return released

    async def _standby_ones(self) -> list[tuple[str, Instance]]:
        """Return standby instances that no launch uses; measure their disks."""
        found = [
            (zone, one)
            for zone, one in await self._inventory.everything()
            if one.is_standby and one.id not in self._journal.instance_ids()
        ]
        for zone, one in found:
            await self._standby.measure(self._exoscale.api(zone), one)
        return found

    async def tidy(self) -> None:
        """Delete the security group, unless an instance of ours needs it.

        Also delete the groups of instances that `sweep_expired` has deleted.
        """
        api = self._exoscale.api(self._settings.zone)
        for name in sorted(self._groups_left):
            await remove_group(api, name)
            self._groups_left.discard(name)
        if not await self._inventory.everything():
            await self._firewall.remove(api)

    @property
    def prices(self) -> Prices:
        """Return what instances cost, as the settings have it."""
        return self._standby.prices

    def _is_expired(self, resource: Instance) -> bool:
        """Tell whether an instance's lease has expired.

        A standby instance stands by until then.
        """
        is_over = resource.lease_end < self._clock.wall()
        return resource.is_made_by_us and not resource.is_leaving and is_over

    async def _end_expired(self, location: str, resource: Instance) -> None:
        try:
            await super()._end_expired(location, resource)
        finally:
            owner, offer = resource.tag("owner") or "", resource.tag("offer") or ""
            self._groups_left.add(group_name(owner, offer))

    async def check(self) -> list[Finding]:
        """Examine key, rights, type, quota, template and disk; buy nothing."""
        from ollama_proxy.backends.exoscale.check import check  # noqa: PLC0415 - rare

        return await check(self._zones, self._exoscale.api, self._settings)
