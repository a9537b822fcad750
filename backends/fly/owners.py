"""List and destroy what any deployment of this product has in an app."""

import re
from collections.abc import Awaitable, Callable

from ollama_proxy.backends.base.owners import CloudOwners
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.cloud import FlyCloud
from ollama_proxy.backends.fly.failures import NoAppError
from ollama_proxy.backends.fly.machines import Machine, Volume
from ollama_proxy.backends.fly.settings import DISK_GB, FlySettings
from ollama_proxy.base.errors import ConflictError, NotFoundError
from ollama_proxy.fleet.backend import Belonging
from ollama_proxy.fleet.owners import date_in

_VOLUME = re.compile(r"ollama_(?P<owner>[0-9a-f]{16})\Z")
_VOLUME_ID = "volume "


class Owners(CloudOwners[Machine]):
    """Sees and destroys things with our product's marks in the app.

    Volumes have no marks: the owner id is in their name.
    """

    def __init__(
        self,
        settings: FlySettings,
        *,
        cloud: FlyCloud,
        api: FlyApi,
        machines: Callable[[], Awaitable[list[Machine]]],
    ) -> None:
        """Take ``machines``, which returns those of earlier lists too.

        So a twin's machine that one list has shown is not lost if the next list lacks
        it.
        """
        super().__init__(cloud)
        self._settings = settings
        self._api = api
        self._machines = machines

    async def belongings(self) -> list[Belonging]:
        """Return machines and volumes; none if there is no such app."""
        found = self.of(await self._machines())
        try:
            volumes = await self._api.volumes()
        except NoAppError:
            return found
        for volume in volumes:
            named = _VOLUME.match(volume.name)
            if named and not volume.is_leaving:
                found.append(self._volume(volume, named["owner"]))
        return found

    def of(self, machines: list[Machine]) -> list[Belonging]:
        """Return the machines of a list that carry our product's marks."""
        return [
            self._machine(one)
            for one in machines
            if one.is_made_by_us and not one.is_leaving
        ]

    def _machine(self, one: Machine) -> Belonging:
        settings = self._settings
        at_rest = settings.storage_per_hour(DISK_GB)
        return Belonging(
            one.id,
            f"machine {one.id} in {one.region or 'an unknown region'}",
            one.tag("owner") or "",
            one.state,
            launch_id=one.launch,
            runs=not one.is_stopped,
            made_at=date_in(one.created_at),
            lease_end=one.lease_end,
            per_hour=at_rest if one.is_stopped else settings.price_per_hour,
        )

    def _volume(self, one: Volume, owner_id: str) -> Belonging:
        return Belonging(
            f"{_VOLUME_ID}{one.id}",
            f"volume {one.id} in {one.region}, {one.size_gb} GB",
            owner_id,
            one.state or "there",
            made_at=date_in(one.created_at),
            per_hour=self._settings.storage_per_hour(one.size_gb),
        )

    async def discard(self, one: Belonging) -> bool:
        """Go one step towards its destruction; True once it is destroyed."""
        if one.id.startswith(_VOLUME_ID):
            return await self._discard_volume(one.id.removeprefix(_VOLUME_ID))
        return await super().discard(one)

    async def _discard_volume(self, volume_id: str) -> bool:
        """Destroy a volume; a machine that is being destroyed has it for a while."""
        try:
            await self._api.delete_volume(volume_id)
        except NotFoundError:
            return True
        except ConflictError:
            return False
        return True

    def _place_of(self, one: Belonging) -> tuple[str, str]:
        return self._api.app, one.id
