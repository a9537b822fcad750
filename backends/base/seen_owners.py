"""Hand a cloud backend's `SupportsOwners` on to its own `Owners`."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ollama_proxy.backends.base.owners import CloudOwners
from ollama_proxy.base.clock import Clock
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Belonging
from ollama_proxy.fleet.owners import refuse_twins

_Owners = TypeVar("_Owners", bound=CloudOwners[Any])


class SeesOwners(Generic[_Owners]):
    """Knows what is whose in its cloud, and works beside no twin."""

    _owners: _Owners
    _owner_id: str
    _remembers: Callable[[LaunchId], bool]
    _clock: Clock

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
        refuse_twins(found, self._owner_id, self._remembers, self._clock.wall())
