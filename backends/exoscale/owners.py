"""List and delete what any deployment of this product has in an organisation."""

import re
from collections.abc import Mapping
from typing import ClassVar

import structlog

from ollama_proxy.backends.base.owners import CloudOwners
from ollama_proxy.backends.exoscale.cloud import ExoscaleCloud
from ollama_proxy.backends.exoscale.instances import Instance
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.base import log
from ollama_proxy.base.errors import ConflictError, CredentialsError, NotFoundError
from ollama_proxy.fleet.backend import Belonging
from ollama_proxy.fleet.owners import date_in

_GROUP = re.compile(r"ollama-proxy-(?P<owner>[0-9a-f]{16})(?:-[A-Za-z0-9_-]{1,40})?\Z")
_GROUP_ID = "group "


class Owners(CloudOwners[Instance]):
    """Sees and deletes things with our product's label, in all known zones.

    Security groups have no labels: the owner id is in their name. A standby instance
    that fits no launch counts as expired.
    """

    estranged: ClassVar[Mapping[str, str]] = {"spec": "hadopted", "lease": "0"}

    def __init__(self, settings: ExoscaleSettings, *, cloud: ExoscaleCloud) -> None:
        super().__init__(cloud)
        self._settings = settings
        self._api = cloud.api

    async def instances(self) -> list[Belonging]:
        """Return the instances of all zones."""
        found: list[Belonging] = []
        for zone in self._cloud.locations():
            found += [
                self._instance(zone, one)
                for one in await self._cloud.list(zone)
                if one.is_made_by_us and not one.is_leaving
            ]
        return found

    async def belongings(self) -> list[Belonging]:
        """Return the instances of all zones, and the security groups.

        Without the right to list groups, as for a key for sweeps only, just the
        instances.
        """
        return await self.instances() + await self._groups()

    async def _groups(self) -> list[Belonging]:
        """Return the security groups; none, with a warning, if the key may not."""
        found: list[Belonging] = []
        api = self._api(self._settings.zone)
        try:
            answer = await api.call("list_security_groups", visibility="private")
        except CredentialsError as error:
            structlog.get_logger().warning(
                log.GROUPS_UNSEEN, zone=self._settings.zone, error=str(error)
            )
            return found
        for group in answer.get("security-groups") or []:
            if named := _GROUP.match(str(group.get("name"))):
                name = f"security group {group['name']}"
                group_id = f"{_GROUP_ID}{group['id']}"
                found.append(
                    Belonging(group_id, name, named["owner"], "there", per_hour=0.0)
                )
        return found

    def _instance(self, zone: str, one: Instance) -> Belonging:
        runs = one.state != "stopped"
        settings, disk = self._settings, self._settings.disk_price
        stopped = None if disk is None else disk * settings.disk_size
        return Belonging(
            f"{zone} {one.id}",
            f"instance {one.name or one.id} in {zone}",
            one.tag("owner") or "",
            one.state,
            launch_id=one.launch,
            runs=runs,
            made_at=date_in(one.created_at),
            lease_end=one.lease_end or None,
            per_hour=settings.price_per_hour if runs else stopped,
        )

    async def discard(self, one: Belonging) -> bool:
        """Go one step towards its deletion; True once it is deleted."""
        if one.id.startswith(_GROUP_ID):
            return await self._discard_group(one.id.removeprefix(_GROUP_ID), one)
        return await super().discard(one)

    async def _discard_group(self, group_id: str, one: Belonging) -> bool:
        api = self._api(self._settings.zone)
        try:
            group = await api.call("get_security_group", id=group_id)
            named = _GROUP.match(str(group.get("name")))
            if named is None or named["owner"] != one.owner_id:
                return True
            await api.carry_out("delete_security_group", id=group_id)
        except NotFoundError:
            return True
        except ConflictError:
            return False  # a deleted instance uses it for some more minutes
        return True
