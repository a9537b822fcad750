"""Delete and estrange the instances of any owner, of this deployment or another."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic

from ollama_proxy.backends.base.cloud import Cloud, R
from ollama_proxy.base.errors import NotFoundError
from ollama_proxy.fleet.backend import Belonging


class CloudOwners(ABC, Generic[R]):
    """Sees and deletes what carries our product's label in one cloud.

    A cloud provides `belongings`. A cloud with other things than instances overrides
    `discard`. ``estranged``: tags of an instance that fits no launch.
    """

    estranged: ClassVar[Mapping[str, str]] = {"spec": "adopted"}

    def __init__(self, cloud: Cloud[R]) -> None:
        self._cloud = cloud

    @abstractmethod
    async def belongings(self) -> list[Belonging]:
        """Return all that carries the product's label, of any owner."""

    async def discard(self, one: Belonging) -> bool:
        """Go one step towards a thing's deletion; True once it is deleted."""
        resource = await self._still_theirs(one)
        if resource is None:
            return True
        location, _ = self._place_of(one)
        return await self._delete(location, resource)

    async def _delete(self, location: str, resource: R) -> bool:
        """Ask for an instance's deletion; True if the cloud knows no such one."""
        try:
            await self._cloud.delete(location, resource)
        except NotFoundError:
            return True
        return False

    async def estrange(self, one: Belonging) -> None:
        """Have an instance never be started again as it is; other things stay."""
        if one.launch_id is None:
            return
        resource = await self._still_theirs(one)
        if resource is not None:
            location, _ = self._place_of(one)
            await self._cloud.tag(location, resource, self.estranged)

    async def _still_theirs(self, one: Belonging) -> R | None:
        """Return an instance as its cloud shows it now, if it is that owner's."""
        try:
            resource = await self._cloud.get(*self._place_of(one))
        except NotFoundError:
            return None
        is_theirs = resource.is_made_by_us and resource.tag("owner") == one.owner_id
        return resource if is_theirs and not resource.is_leaving else None

    def _place_of(self, one: Belonging) -> tuple[str, str]:
        """Return the location of an instance, and its id there."""
        location, _, resource_id = one.id.partition(" ")
        return location, resource_id
