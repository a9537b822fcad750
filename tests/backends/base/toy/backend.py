"""What the author of a cloud writes, beside its client, its settings and its check."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import msgspec

from ollama_proxy.backends.base.cloud import Assessment, Resource, StateContext
from ollama_proxy.backends.base.managed import ManagedBackend
from ollama_proxy.backends.base.owners import CloudOwners
from ollama_proxy.backends.base.ownership_tags import OwnershipTags, TagFormat
from ollama_proxy.backends.base.placement import Placement
from ollama_proxy.backends.base.provisioning_journal import ProvisioningJournal
from ollama_proxy.backends.base.starting import Creation
from ollama_proxy.base.clock import Clock
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Belonging, Notes, Traits, Upstream
from ollama_proxy.fleet.owners import date_in
from tests.backends.base.toy.provider import Provider

TAGS = TagFormat(("maker", "ollama-proxy"), prefix="op-")
YARDS = ("north", "south")
SPEC = "v1"
LEASE_S = 600.0


class Box(Resource, msgspec.Struct, frozen=True, rename={"created_at": "at"}):
    """One box, as the provider shows it."""

    tag_format: ClassVar = TAGS

    id: str
    power: str
    created_at: str
    notes: dict[str, str] = {}

    @property
    def raw_tags(self) -> dict[str, str]:
        return self.notes

    @property
    def state_in_words(self) -> str:
        return self.power

    @property
    def is_leaving(self) -> bool:
        return self.power == "scrapped"

    @property
    def is_stopping(self) -> bool:
        return False

    @property
    def is_stopped(self) -> bool:
        return self.power == "off"


class ToyCloud:
    """Calls of the provider's client, one each."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def locations(self) -> list[str]:
        return list(YARDS)

    async def list(self, location: str) -> list[Box]:
        return msgspec.convert(self._provider.boxes_of(location), list[Box])

    async def get(self, location: str, resource_id: str) -> Box:
        return msgspec.convert(self._provider.box(resource_id), Box)

    async def start(self, location: str, resource: Box) -> None:
        self._provider.switch(resource.id, "on")

    async def stop(self, location: str, resource: Box) -> None:
        self._provider.switch(resource.id, "off")

    async def delete(self, location: str, resource: Box) -> None:
        self._provider.scrap(resource.id)

    async def tag(self, location: str, resource: Box, tags: Mapping[str, str]) -> None:
        self._provider.annotate(resource.id, TAGS.spelt(tags))

    def assess(self, resource: Box, context: StateContext) -> tuple[Assessment, str]:
        if resource.is_stopped and context.start_not_visible_yet:
            return Assessment.PENDING, "switched on, not yet shown"
        if resource.is_stopped and context.standby:
            return Assessment.GONE, "off"
        if resource.power == "on":
            return Assessment.MAYBE_READY, "on"
        return Assessment.FAILED, f"the box is {resource.power}"

    def endpoint(
        self, location: str, resource: Box, identity: str | None
    ) -> Upstream | None:
        return Upstream(f"{self._provider.guard_url}/{resource.id}")

    async def aclose(self) -> None:
        """Nothing is open."""


class ToyOwners(CloudOwners[Box]):
    """What any deployment has at the provider."""

    async def belongings(self) -> list[Belonging]:
        return [
            self.belonging(yard, box)
            for yard in YARDS
            for box in await self._cloud.list(yard)
            if box.is_made_by_us
        ]

    def belonging(self, yard: str, box: Box) -> Belonging:
        return Belonging(
            f"{yard} {box.id}",
            f"box {box.id} in {yard}",
            box.tag("owner") or "",
            box.power,
            launch_id=box.launch,
            runs=not box.is_stopped,
            made_at=date_in(box.created_at),
            lease_end=box.lease_end,
        )


class ToyBackend(ManagedBackend[Box, ToyOwners]):
    """Boxes of one deployment."""

    noun = "box"
    orphan_prefix = "box-"

    def __init__(
        self,
        provider: Provider,
        *,
        owner_id: str,
        notes: Notes,
        clock: Clock,
        uses_standby: bool = False,
        remembers: Callable[[LaunchId], bool] = lambda _: True,
    ) -> None:
        cloud = ToyCloud(provider)
        super().__init__(
            cloud,
            ToyOwners(cloud),
            tags=OwnershipTags(owner_id, TAGS),
            remembers=remembers,
            journal=ProvisioningJournal(notes, clock.now()),
            clock=clock,
            uses_standby=uses_standby,
            lease_s=LEASE_S,
        )
        self._provider = provider
        self.traits = Traits(poll_s=0.01, watch_s=30.0, location=YARDS[0])

    def _placements(self) -> list[Placement]:
        return [Placement(yard) for yard in YARDS]

    async def _creation(self, launch_id: LaunchId, placement: Placement) -> Creation:
        lease_end = self._clock.wall() + LEASE_S
        notes = self._tags.of(launch_id, lease_end=lease_end, spec=SPEC)

        async def create() -> str:
            return self._provider.create(placement.location, notes)

        return Creation(create)

    async def _all_belongings(self) -> list[Belonging]:
        return await self._owners.belongings()

    def _described(self, location: str, resource: Box) -> str:
        return f"box {resource.id} in {location} ({resource.power})"
