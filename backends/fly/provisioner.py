"""Make a machine: where, with which volume, and the one call."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_proxy.backends.base.ownership_tags import OwnershipTags
from ollama_proxy.backends.base.placement import Placement, Room
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningJournal,
    ProvisioningRecord,
)
from ollama_proxy.backends.base.reservations import reserving
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.config import machine_config, spec_of
from ollama_proxy.backends.fly.failures import NameTakenError
from ollama_proxy.backends.fly.machines import Machine, Volume
from ollama_proxy.backends.fly.places import Place, place_in
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.backends.fly.volumes import Volumes
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    NotFoundError,
    SpecError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.upstream.certificates import Authority


class Provisioner:
    """Makes machines, each with its record on disk before and after the call."""

    def __init__(
        self,
        settings: FlySettings,
        *,
        api: FlyApi,
        tags: OwnershipTags,
        journal: ProvisioningJournal,
        volumes: Volumes,
        authority: Authority,
        clock: Clock,
        max_lifetime_s: float | None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._api = api
        self._tags = tags
        self._journal = journal
        self._volumes = volumes
        self._authority = authority
        self._clock = clock
        self._max_lifetime_s = max_lifetime_s or 0.0
        self._environment = dict(environment or {})
        self._room = Room(clock)
        self.stuck: set[str] = set()

    @property
    def image(self) -> str | None:
        """Return the image that is meant: of the settings, else what was deployed."""
        return self._settings.image or self._journal.book.image

    @property
    def spec(self) -> str:
        """Return a mark that changes with what a machine is made of."""
        return spec_of(
            self._settings, self.image, self._max_lifetime_s, self._environment
        )

    def config(
        self, launch_id: LaunchId, identity: str, volume: str | None
    ) -> dict[str, Any]:
        """Return the configuration of a machine for a launch."""
        if self.image is None:
            raise SpecError(
                "no image is known; run `ollama-proxy deploy IMAGE` once, with that of"
                " cloud-init/container, or set FLY_IMAGE"
            )
        metadata = self._tags.of(
            launch_id,
            lease_end=self._clock.wall() + self._settings.lease,
            spec=self.spec,
            identity=identity,
        )
        return machine_config(
            self._settings,
            self.image,
            token=self._authority.token(LaunchId(identity)),
            metadata=metadata,
            volume=volume,
            max_lifetime_s=self._max_lifetime_s,
            environment=self._environment,
        )

    async def make(self, launch_id: LaunchId, name: str) -> Machine:
        """Make a machine and start it, in the first place that has room.

        Raises `NameTakenError` if a machine of that name exists.
        """
        self.config(launch_id, launch_id, None)  # raises without an image
        problems: list[BackendError] = []
        spare = await self._spare()
        for region in self._regions(spare):
            for _ in range(2):  # an existing volume, then a copy of it
                place = self._place_in(region, spare)
                try:
                    return await self._make_at(launch_id, name, place)
                except CapacityError as error:
                    problems.append(error)
                if place.volume is not None:
                    self.stuck.add(place.volume)
                spare = await self._spare()
                if place.volume is None:
                    break
            self._room.note_full(Placement(region))
        raise self._no_room(problems[0])

    def _no_room(self, problem: BackendError) -> CapacityError:
        """Return the error of a launch that no region had room for."""
        regions = ", ".join(self._settings.regions)
        return CapacityError(
            f"no room for {self._settings.size} in {regions}; add regions to"
            f" FLY_FALLBACK_REGIONS, or choose another FLY_VM_SIZE ({problem})"
        )

    async def _spare(self) -> list[Volume]:
        """Return our volumes that no machine has, the best first."""
        return await self._volumes.spare() if self._settings.volume_gb else []

    def _regions(self, spare: Sequence[Volume]) -> list[str]:
        """Return the regions in the order in which they are tried.

        Regions without recent lack of room come first, and among these the one with our
        volume.
        """
        best = spare[0].region if spare else None
        regions = self._settings.regions
        return sorted(regions, key=lambda one: (self._is_full(one), one != best))

    def _is_full(self, region: str) -> bool:
        """Tell whether there was no room in a region lately."""
        return self._room.is_full(Placement(region))

    def _place_in(self, region: str, spare: Sequence[Volume]) -> Place:
        if not self._settings.volume_gb:
            return Place(region, with_volume=False)
        return place_in(region, spare, self.stuck | self._volumes.reserved)

    async def _make_at(self, launch_id: LaunchId, name: str, place: Place) -> Machine:
        """Make a machine in one place and start it; leave none behind without room.

        Raises `ConflictError` if it is still being prepared and must be started later.
        Its volume is then attached. If it is a copy, it and its source both exist until
        the machine serves: then `Volumes.settle` destroys the superfluous one.
        """
        # `at` does not suspend if the volume exists, nor after it has made one: no
        # other launch sees a volume before it is reserved.
        volume = await self._volumes.at(place)
        with reserving(self._volumes.reserved, volume):
            try:
                return await self._make_with(launch_id, name, place.region, volume)
            except BackendError as error:
                if place.needs_new_volume and volume is not None:
                    await self._drop_if_in_vain(launch_id, volume, error)
                raise

    async def _drop_if_in_vain(
        self, launch_id: LaunchId, volume: str, error: BackendError
    ) -> None:
        """Destroy a new volume if it is certain that its machine was not made."""
        record = self._journal.get(launch_id)
        is_unmade = record is None or record.create_not_sent
        if is_unmade or isinstance(error, NameTakenError):
            await self._volumes.drop(volume)

    async def _make_with(
        self, launch_id: LaunchId, name: str, region: str, volume: str | None
    ) -> Machine:
        config = self.config(launch_id, launch_id, volume)
        now, before = self._clock.now(), self._journal.get(launch_id)
        is_unmade = before is not None and before.create_not_sent
        sent = ProvisioningRecord(region, attempted_at=now, identity=str(launch_id))
        machine = await self._journal.create(
            launch_id,
            sent,
            lambda: self._api.create(name, region, config),
            is_refusal=lambda error: is_unmade or not isinstance(error, NameTakenError),
        )
        begun_at = self._clock.now()
        self._journal.update(launch_id, instance_id=machine.id, started_at=begun_at)
        try:
            await self._api.start(machine.id, machine.nonce or "")
        except CapacityError:
            await self._unmake(launch_id, machine)
            raise
        finally:
            if machine.nonce:
                await self._api.unlock(machine.id, machine.nonce)
        return machine

    async def _unmake(self, launch_id: LaunchId, machine: Machine) -> None:
        """Destroy a machine that got no room, and wait until it is gone.

        Until then its name is taken and its volume attached.
        """
        with contextlib.suppress(NotFoundError):
            await self._api.destroy(machine.id, machine.nonce)
            if not await self._api.reaches(machine, "destroyed"):
                raise ConflictError(f"the machine {machine.id} is being destroyed")
        self._journal.put(launch_id, ProvisioningRecord(machine.region))
