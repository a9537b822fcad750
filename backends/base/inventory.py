"""List every instance of a deployment, in every location, as its cloud shows them."""

from collections.abc import Callable, Mapping
from typing import Generic

import structlog

from ollama_proxy.backends.base.cloud import Cloud, R
from ollama_proxy.backends.base.ownership_tags import OwnershipTags, oldest_first
from ollama_proxy.backends.base.sightings import Sightings
from ollama_proxy.base import log
from ollama_proxy.base.errors import BackendError
from ollama_proxy.core.lifecycle.record import LaunchId


class Inventory(Generic[R]):
    """Lists the instances of one owner.

    ``known``: instances shown before, by id, with their location; ``save`` stores them.
    ``passes_over``: skip a location that does not answer (see `everything`).
    """

    def __init__(
        self,
        cloud: Cloud[R],
        *,
        tags: OwnershipTags,
        known: Mapping[str, str],
        save: Callable[[dict[str, str]], None],
        passes_over: bool,
    ) -> None:
        self._cloud = cloud
        self._tags = tags
        self._passes_over = passes_over
        self._sightings = Sightings[R](
            known, ask=cloud.get, is_over=self._is_over, save=save
        )
        self._log = structlog.get_logger()

    def _is_over(self, resource: R) -> bool:
        return resource.is_leaving or not self._tags.is_ours(resource)

    async def listed(self, location: str) -> list[R]:
        """Return every instance in a location's list, and ours that the list lacks.

        An instance that was shown before and is missing from the list is looked up by
        its id.
        """
        listed = await self._cloud.list(location)
        ours = [one for one in listed if self._tags.is_ours(one)]
        known = await self._sightings.complete(location, ours)
        shown = {one.id for one in listed}
        return listed + [one for one in known if one.id not in shown]

    async def in_location(self, location: str) -> list[R]:
        """Return ours of a location that are not leaving, the oldest first."""
        listed = await self.listed(location)
        return oldest_first([one for one in listed if not self._is_over(one)])

    async def get(self, location: str, resource_id: str) -> R:
        """Return one instance, and remember it."""
        resource = await self._cloud.get(location, resource_id)
        self._sightings.note(location, resource)
        return resource

    async def everything(
        self, *, surely: str | None = None, strictly: bool = False
    ) -> list[tuple[str, R]]:
        """Return our instances in all locations, each after its location.

        If locations may be skipped, one that does not answer is skipped and logged. It
        raises its error if it is the location ``surely``, if no location answers, or if
        ``strictly``.
        """
        found: dict[str, tuple[str, R]] = {}
        failures: list[BackendError] = []
        locations = self._cloud.locations()
        for location in locations:
            try:
                for one in await self.in_location(location):
                    found.setdefault(one.id, (location, one))
            except BackendError as error:
                if strictly or not self._passes_over or location == surely:
                    raise
                failures.append(error)
                self._log.warning(log.SWEEP_FAILED, region=location, error=str(error))
        if failures and len(failures) == len(locations):
            raise failures[0]
        return list(found.values())

    async def of_launch(
        self, launch_id: LaunchId, *, surely: str | None = None
    ) -> list[tuple[str, R]]:
        """Return the instances that carry a launch's tag, as `everything` does."""
        everything = await self.everything(surely=surely)
        return [(where, one) for where, one in everything if one.launch == launch_id]
