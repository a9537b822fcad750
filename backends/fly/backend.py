"""Keep one machine per slot of the app: started and stopped, or thrown away."""

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

from ollama_proxy.backends.base.ownership_tags import OwnershipTags
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningJournal,
    ProvisioningRecord,
)
from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.app_setup import AppSetup
from ollama_proxy.backends.fly.cloud import FlyCloud
from ollama_proxy.backends.fly.looking import FlyLooks
from ollama_proxy.backends.fly.machines import (
    STOPPED,
    TAGS,
    Machine,
    volume_name,
    volumes_of,
)
from ollama_proxy.backends.fly.owners import Owners
from ollama_proxy.backends.fly.provisioner import Provisioner
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.backends.fly.traits import traits_of
from ollama_proxy.backends.fly.volumes import Volumes
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import NotFoundError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import (
    Finding,
    Observation,
    Phase,
    Prices,
)
from ollama_proxy.fleet.stop_until_gone import until_gone
from ollama_proxy.upstream.certificates import Authority

_ENDING_S = 60.0
"""Longest time from the dead-man's time-out to a stopped machine: checks every 5 s, 10
s for Ollama to exit, and 30 s until Fly kills the rest."""
_NEEDLESS = "volume-"
"""Prefix of a volume's id, as ``machine-`` of a machine's: the sweep destroys it."""


class FlyBackend(FlyLooks):
    """Runs the machines of one deployment, in an app of its own."""

    def __init__(
        self,
        settings: FlySettings,
        *,
        api: FlyApi,
        owner_id: str,
        remembers: Callable[[LaunchId], bool],
        journal: ProvisioningJournal,
        authority: Authority,
        clock: Clock,
        max_lifetime_s: float | None,
        poll_s: float,
        timing: CloudTiming = STANDARD,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._api = api
        self._fly = FlyCloud(settings, api=api, authority=authority)
        tags = OwnershipTags(owner_id, TAGS)
        super().__init__(
            self._fly,
            Owners(settings, cloud=self._fly, api=api, machines=self._machines),
            tags=tags,
            remembers=remembers,
            journal=journal,
            clock=clock,
            uses_standby=settings.idle_action != "destroy",
            lease_s=settings.lease,
            only_location=api.app,
            timing=timing,
        )
        self._volumes = Volumes(
            settings, api=api, name=volume_name(owner_id), journal=journal
        )
        self._provisioner = Provisioner(
            settings,
            api=api,
            tags=tags,
            journal=journal,
            volumes=self._volumes,
            authority=authority,
            clock=clock,
            max_lifetime_s=max_lifetime_s,
            environment=environment,
        )
        self._app_setup = AppSetup(
            settings,
            api=api,
            journal=journal,
            volumes=self._volumes,
            clock=clock,
            timing=timing,
        )
        self._being_made: set[str] = set()
        self._last_shown: dict[LaunchId, Machine] = {}
        self._settled: LaunchId | None = None
        self.traits = traits_of(settings, self._provisioner, poll_s=poll_s)

    def _take_image(self) -> None:
        """Tell by the traits that launches are made of another image from now on."""
        self.traits = traits_of(
            self._settings, self._provisioner, poll_s=self.traits.poll_s
        )

    def _described(self, location: str, resource: Machine) -> str:
        return f"machine {resource.id} in {resource.region} ({resource.state})"

    async def _every_one_of_ours(self) -> list[Machine]:
        """Return our machines, those included that have a volume and are not listed."""
        there = {one.id: one for one in await self._machines()}
        for volume in await self._volumes.ours():
            machine_id = volume.attached_machine_id
            if machine_id is not None and machine_id not in there:
                with contextlib.suppress(NotFoundError):
                    there[machine_id] = await self._api.machine(machine_id)
        return self._ours(list(there.values()))

    def _is_unwanted(self, name: LaunchId) -> bool:
        return name.startswith((self.orphan_prefix, _NEEDLESS))

    async def _inspect_unwanted(self, name: LaunchId) -> Observation:
        """Tell whether a machine or volume without a launch is gone."""
        if name.startswith(_NEEDLESS):
            there = {_NEEDLESS + one.id for one in await self._volumes.ours()}
            return Observation(Phase.PENDING if name in there else Phase.GONE)
        try:
            machine = await self._api.machine(name.removeprefix(self.orphan_prefix))
        except NotFoundError:
            return Observation(Phase.GONE)
        phase = Phase.GONE if machine.is_leaving else Phase.PENDING
        return Observation(phase, detail=machine.state)

    async def _adopt(
        self, launch_id: LaunchId, found: Sequence[tuple[str, Machine]]
    ) -> tuple[ProvisioningRecord, Machine] | None:
        """Record the oldest machine with a launch's marks that is not stopped.

        Others of that launch stay: they are in other slots, and the sweep ends them.
        """
        for _, machine in found:
            if not (self._uses_standby and machine.is_stopped):
                record = self._found(machine)
                self._journal.put(launch_id, record)
                return record, machine
        return None

    async def _settle(self, launch_id: LaunchId, resource: Machine) -> None:
        """Destroy what a serving machine makes superfluous, once per launch.

        That is: stopped machines that were on an unreachable host; volumes that its
        volume was copied from; and volumes that a list did not show.
        """
        if self._settled == launch_id:
            return
        self._volumes.note_served(resource.volume)
        if self._journal.launches() - {launch_id}:
            return
        ours = self._ours(await self._machines())
        others = [one for one in ours if one.id != resource.id]
        for other in others:
            if other.state in STOPPED:
                await self._end(self._api.app, other, standby=False)
        if await self._settle_volumes([resource, *others]) and not others:
            self._settled = launch_id

    async def _settle_volumes(self, machines: Collection[Machine]) -> bool:
        """Destroy the volumes that neither these machines nor the next one need."""
        return await self._volumes.settle(held=volumes_of(machines))

    async def _stop(
        self, launch_id: LaunchId, record: ProvisioningRecord | None
    ) -> None:
        await super()._stop(launch_id, record)
        if self._journal.launches() <= {launch_id}:
            await self._settle_volumes(self._ours(await self._machines()))

    def _may_stand_by(
        self, launch_id: LaunchId, record: ProvisioningRecord | None
    ) -> bool:
        """Tell whether a machine was ready once: in this launch, or in one before."""
        if record is None or record.served:
            return True
        return record.identity not in {None, str(launch_id)}

    async def _end(
        self, location: str, resource: Machine, *, standby: bool, again: bool = False
    ) -> None:
        """Stop or delete as for any cloud, but destroy what never ran or has failed.

        Fly may start the former by itself hours later, and may still bill the latter.
        """
        fits = resource.state not in {"created", "failed", "launch_failed"}
        await super()._end(location, resource, standby=standby and fits, again=again)

    async def _end_unwanted(self, name: LaunchId) -> None:
        """Destroy a machine or volume that no launch has, if that is still so."""
        if name.startswith(_NEEDLESS):
            await self.tidy()
        else:
            await super()._end_unwanted(name)

    async def owned(self) -> Collection[LaunchId]:
        """Name every launch with a machine, as for any cloud, and superfluous volumes.

        A volume that is not needed is named by its own id.
        """
        found = await self._inventory.everything()
        names = self._owned_of(found)
        if not self._journal.launches():  # else one may wait for its machine
            names |= await self._needless_volumes([machine for _, machine in found])
        return names

    def _worth(self, resource: Machine) -> tuple[bool, ...]:
        has_models = resource.volume == self._journal.book.volume
        return not resource.is_stopped, not has_models

    def _shows_stopped(self, resource: Machine) -> bool:
        """Tell whether it is stopped, as last known: its host may be out of reach."""
        return resource.state in STOPPED

    async def _needless_volumes(self, machines: list[Machine]) -> set[LaunchId]:
        needless = await self._volumes.needless(held=volumes_of(machines))
        return {LaunchId(_NEEDLESS + one.id) for one in needless}

    @property
    def prices(self) -> Prices:
        """Return what the machine costs, running by the settings, and at rest."""
        rest = self._app_setup.idle_price_per_hour(machines=self._standby_count)
        return Prices(self._settings.price_per_hour, self._standby_count, rest)

    @property
    def unattended_s(self) -> float | None:
        """Return how long at most a machine runs without a renewal.

        The image's entrypoint counts from its start, and exits; the machine is not
        started again (restart policy ``no``). Not tried on a live account.
        """
        return self._settings.dead_man_timeout + _ENDING_S

    async def _end_expired(self, location: str, resource: Machine) -> None:
        async with self._api.machine_lock(resource.id) as nonce:
            if resource.state == "started":
                await self._api.stop(resource.id, nonce)
            else:
                await self._api.destroy(resource.id, nonce)

    async def tidy(self) -> None:
        """Destroy volumes that no machine needs."""
        if not self._journal.launches():  # else one may wait for its machine
            await self._settle_volumes(self._ours(await self._machines()))

    async def kept(self) -> list[str]:
        """Return what costs while nothing runs, in words, with its monthly price."""
        return await self._app_setup.kept(self._ours(await self._machines()))

    async def deploy(self, image: str) -> AsyncIterator[str]:
        """Make app, addresses and volume for an image; tell each step."""
        async for step in self._app_setup.deploy(image):
            yield step
        self._take_image()

    async def remove(self) -> AsyncIterator[str]:
        """Delete machines, volumes, addresses and the app, in this order.

        If a proxy on a copy of the state folder uses a machine, that machine is named
        in the error and nothing is touched.
        """
        ours = await self._every_one_of_ours()
        self._refuse_twins(self._owners.of(ours))
        for launch_id in sorted(self._journal.launches()):
            yield f"stopping the machine of launch {launch_id}"
            await until_gone(self, launch_id)
            ours = await self._every_one_of_ours()
            self._refuse_twins(self._owners.of(ours))
        for machine in ours:
            yield f"destroying machine {machine.id} ({machine.state})"
            await until_gone(self, LaunchId(self.orphan_prefix + machine.id))
            await self._api.reaches(machine, "destroyed")
        async for step in self._app_setup.remove():
            yield step
        self._take_image()

    async def deployed(self) -> list[str]:
        """Return what there is of this deployment, in words."""
        return await self.kept()

    async def check(self) -> list[Finding]:
        """Examine token, app, region, size, image, addresses; make nothing."""
        from ollama_proxy.backends.fly.check import examine  # noqa: PLC0415 - rare

        return await examine(self._api, self._settings, image=self._provisioner.image)
