"""Hold what each part of a managed backend stands on: cloud, journal, one look."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import structlog
from msgspec.structs import replace

from ollama_proxy.backends.base.cloud import Cloud, R
from ollama_proxy.backends.base.guard_client import GuardClient
from ollama_proxy.backends.base.inventory import Inventory
from ollama_proxy.backends.base.owners import CloudOwners
from ollama_proxy.backends.base.ownership_tags import OwnershipTags
from ollama_proxy.backends.base.placement import Placement, Room
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningJournal,
    ProvisioningRecord,
    unsent,
)
from ollama_proxy.backends.base.sightings import Absences
from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    NotFoundError,
    SpecError,
    TransientError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Belonging, Observation, Phase, Upstream
from ollama_proxy.fleet.owners import refuse_twins

O = TypeVar("O", bound=CloudOwners[Any])  # noqa: E741 - the other one is R


class ManagedCore(ABC, Generic[R, O]):
    """Holds one owner's instances in a cloud, and the journal of its launches."""

    noun: ClassVar[str] = "instance"
    orphan_prefix: ClassVar[str] = "instance-"
    tags_noun: ClassVar[str] = "tags"
    deleted_by: ClassVar[str] = "delete it in the cloud's portal"
    passes_over_locations: ClassVar[bool] = False
    passed_over: ClassVar[tuple[type[BackendError], ...]] = (CapacityError, SpecError)

    def __init__(
        self,
        cloud: Cloud[R],
        owners: O,
        *,
        tags: OwnershipTags,
        remembers: Callable[[LaunchId], bool],
        journal: ProvisioningJournal,
        clock: Clock,
        uses_standby: bool,
        lease_s: float,
        only_location: str | None = None,
        timing: CloudTiming = STANDARD,
    ) -> None:
        """Manage the instances of the owner of ``tags``.

        ``uses_standby``: stopped instances stand by for the next launch. ``lease_s``:
        how long an instance is marked as wanted. ``only_location``: for a cloud with a
        single list of instances in all locations.
        """
        self._cloud = cloud
        self._owners = owners
        self._tags = tags
        self._remembers = remembers
        self._journal = journal
        self._clock = clock
        self._uses_standby = uses_standby
        self._lease_s = lease_s
        self._only_location = only_location
        self._inventory = Inventory[R](
            cloud,
            tags=tags,
            known=journal.shown(only_location),
            save=journal.note_shown,
            passes_over=self.passes_over_locations,
        )
        self._room = Room(clock)
        self._timing = timing
        self._guard = GuardClient(timing)
        self._absences = Absences()
        self._looks: dict[LaunchId, int] = {}
        self._reached: dict[LaunchId, Upstream] = {}
        self._told_to_stop: set[LaunchId] = set()
        self._standby_count = 0
        self._log = structlog.get_logger()

    async def belongings(self) -> list[Belonging]:
        """Return all that carries the product's label, ours included."""
        return await self._owners.belongings()

    async def discard(self, one: Belonging) -> bool:
        """Go one step towards a thing's deletion; True once it is deleted."""
        return await self._owners.discard(one)

    async def estrange(self, one: Belonging) -> None:
        """Have an instance never be started again as it is: its keys are lost."""
        await self._owners.estrange(one)

    def _refuse_twins(self, found: list[Belonging]) -> None:
        """Raise `TwinError` if a proxy on a copy of the state folder has anything."""
        refuse_twins(found, self._tags.owner_id, self._remembers, self._clock.wall())

    @abstractmethod
    def _described(self, location: str, resource: R) -> str:
        """Return an instance in words: which, where, in which state."""

    def _location_of(self, record: ProvisioningRecord) -> str:
        """Return the location whose list has the instance of a record."""
        return self._only_location or record.location

    def _sent_to(self, launch_id: LaunchId) -> str | None:
        """Return the location in which an instance may have been made."""
        record = self._journal.get(launch_id)
        if record is None or record.attempted_at is None:
            return None
        return self._location_of(record)

    async def _look(self, launch_id: LaunchId, record: ProvisioningRecord) -> R | None:
        """Return a launch's instance; None if the cloud neither knows nor lists it."""
        assert record.instance_id is not None  # noqa: S101 - the callers looked
        location = self._location_of(record)
        try:
            resource = await self._inventory.get(location, record.instance_id)
        except NotFoundError as error:
            listed = await self._inventory.in_location(location)
            if any(one.id == record.instance_id for one in listed):
                raise TransientError(f"{error}, and yet it is in the list") from error
            return None
        self._journal.note_look(launch_id, live=self._is_live(resource))
        return resource

    def _is_live(self, resource: R) -> bool:
        """Tell whether an instance shows that it was started."""
        return not resource.is_stopped

    def _is_unwanted(self, name: LaunchId) -> bool:
        """Tell whether a name is that of an instance which no launch has."""
        return name.startswith(self.orphan_prefix)

    def _is_not_shown_yet(self, record: ProvisioningRecord) -> bool:
        """Tell whether the cloud may not show a new instance yet."""
        return record.create_may_arrive(self._clock.now()) and not record.seen

    def _is_unshown(self, launch_id: LaunchId) -> bool:
        record = self._journal.get(launch_id)
        return record is not None and record.start_not_visible_yet(self._clock.now())

    def _may_turn_up(self, launch_id: LaunchId, record: ProvisioningRecord) -> bool:
        """Tell whether an instance that no list shows may still have been created.

        Called after a look that showed none: a single look proves nothing.
        """
        now, sent_at = self._clock.now(), record.attempted_at
        if sent_at is None:
            return False
        is_certain = self._absences.is_certain(launch_id, now, sent_at=sent_at)
        return record.create_may_arrive(now) or not is_certain

    async def _adopt(
        self, launch_id: LaunchId, found: Sequence[tuple[str, R]]
    ) -> tuple[ProvisioningRecord, R] | None:
        """Record the instance that carries a launch's tags; None if there is none.

        Of several, the oldest stays: the others were created by mistake.
        """
        if not found:
            return None
        self._absences.end(launch_id)
        (location, first), *rest = sorted(found, key=lambda one: one[1].created_at)
        record = replace(
            unsent(self._placement_of(location, first)),
            attempted_at=self._clock.now(),
            instance_id=first.id,
            identity=first.tag("identity"),
        )
        self._journal.put(launch_id, record)
        for other_location, other in rest:
            self._log.error(log.INSTANCE_DOUBLE, launch_id=launch_id, instance=other.id)
            await self._end(other_location, other, standby=False)
        return record, first

    def _placement_of(self, location: str, resource: R) -> Placement:
        """Return where an instance that was found is, as its record has it."""
        return Placement(location)

    async def _renew_lease(self, location: str, resource: R) -> None:
        """Mark an instance as wanted for a lease's length from now on."""
        lease_end = f"{self._clock.wall() + self._lease_s:.0f}"
        await self._cloud.tag(location, resource, {"lease": lease_end})

    async def _end(
        self, location: str, resource: R, *, standby: bool, again: bool = False
    ) -> None:
        """Stop an instance that is to stand by for the next launch; delete any other.

        ``again``: stop it even if it is shown as stopped, because it was just started.
        """
        self._refuse_foreign(location, resource)
        if resource.is_leaving:
            return
        with contextlib.suppress(NotFoundError):
            if not standby:
                await self._cloud.delete(location, resource)
            elif again or not (self._shows_stopped(resource) or resource.is_stopping):
                await self._cloud.stop(location, resource)

    def _shows_stopped(self, resource: R) -> bool:
        """Tell whether an instance costs its disk at most, as far as is known."""
        return resource.is_stopped

    def _refuse_foreign(self, location: str, resource: R) -> None:
        """Raise `TransientError` if an instance is not ours any more."""
        if not self._tags.is_ours(resource):
            raise TransientError(
                f"the {self.noun} {resource.id} in {location} does not carry our"
                f" {self.tags_noun} any more, so it is left alone; {self.deleted_by}"
            )

    def _forgotten(self, launch_id: LaunchId) -> Observation:
        """Forget a launch of which nothing runs any more."""
        self._looks.pop(launch_id, None)
        self._absences.end(launch_id)
        self._journal.drop(launch_id)
        self._reached.pop(launch_id, None)
        self._told_to_stop.discard(launch_id)
        return Observation(Phase.GONE)
