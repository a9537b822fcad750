"""Map each launch to one instance of a cloud, created once and ended for certain.

The author of a cloud writes a `Cloud`, its `CloudOwners`, and a `ManagedBackend` with
the parts listed below. Everything else of the protocol `Backend` is here.
"""

from ollama_proxy.backends.base.cloud import R
from ollama_proxy.backends.base.ending import Ending
from ollama_proxy.backends.base.expiry import is_renewal_due
from ollama_proxy.backends.base.inspecting import Inspecting
from ollama_proxy.backends.base.managed_core import O
from ollama_proxy.backends.base.starting import Starting
from ollama_proxy.core.lifecycle.record import LaunchId


class ManagedBackend(Starting[R, O], Inspecting[R, O], Ending[R, O]):
    """start · inspect · stop · owned · renew · sweep_expired over cloud and journal.

    A cloud provides ``noun`` (its word for an instance), ``orphan_prefix`` (followed by
    an id: the name under which the sweep ends that instance alone), `_placements`,
    `_creation`, `_all_belongings` and `_described`. Any other method with an underscore
    can be overridden where a cloud differs.
    """

    async def renew(self, launch_id: LaunchId, *, serves: bool) -> None:
        """Put off the dead-man's switch, and now and then the end of the lease."""
        record = self._journal.get(launch_id)
        if record is None or record.instance_id is None:
            return
        if (upstream := self._reached.get(launch_id)) is not None:
            await self._guard.renew(upstream)
        if serves:
            self._journal.note_served(launch_id)
        location = self._location_of(record)
        resource = await self._cloud.get(location, record.instance_id)
        if is_renewal_due(resource.lease_end, self._clock.wall(), self._lease_s):
            await self._renew_lease(location, resource)
        if serves:
            await self._settle(launch_id, resource)

    async def _settle(self, launch_id: LaunchId, resource: R) -> None:
        """Clear what an instance that serves makes needless."""

    async def aclose(self) -> None:
        """Close connections; instances stay as they are."""
        await self._guard.aclose()
        await self._cloud.aclose()
