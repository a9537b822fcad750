"""Buy an instance: the order, and the one call."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from msgspec.structs import replace

from ollama_proxy.backends.base.ownership_tags import OwnershipTags
from ollama_proxy.backends.base.placement import Placement
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningJournal,
    unsent,
)
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.choices import (
    Template,
    check_disk,
    find_template,
    find_type,
    read_templates,
    read_types,
)
from ollama_proxy.backends.exoscale.firewall import Firewall
from ollama_proxy.backends.exoscale.operations import reference_of
from ollama_proxy.backends.exoscale.remembered import Read, Remembered
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.backends.exoscale.userdata import Installation, user_data
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    CapacityError,
    NotFoundError,
    SpecError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.upstream.certificates import Authority


async def template_in(read: Read, settings: ExoscaleSettings, zone: str) -> Template:
    """Return the template that is meant; raises `SpecError` if it won't do."""
    private = read_templates(await read("list_templates", visibility="private"))
    public = read_templates(await read("list_templates", visibility="public"))
    template = find_template(private, public, settings.template, zone)
    check_disk(template, settings.disk_size)
    return template


class Provisioner:
    """Buys instances, each with its record on disk before and after."""

    def __init__(
        self,
        settings: ExoscaleSettings,
        *,
        tags: OwnershipTags,
        firewall: Firewall,
        journal: ProvisioningJournal,
        authority: Authority,
        clock: Clock,
        api_of: Callable[[str], ExoscaleApi],
        models: Collection[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._tags = tags
        self._firewall = firewall
        self._journal = journal
        self._authority = authority
        self._clock = clock
        self._api_of = api_of
        self._models = models
        self._environment = dict(environment or {})
        self._remembered = Remembered(clock)

    async def make(self, launch_id: LaunchId, placement: Placement) -> None:
        """Send the one create call, with the purchase noted before and after."""
        try:
            order = await self._order(launch_id, placement)
            send_once = partial(self._send_once, launch_id, placement, order)
            await self._api_of(placement.location).patience.through(send_once)
        except (CapacityError, NotFoundError, SpecError):
            self._remembered.forget(placement.location)
            self._firewall.forget()
            raise

    async def _send_once(
        self, launch_id: LaunchId, placement: Placement, order: dict[str, Any]
    ) -> None:
        """Send the create call, noted at the moment of this very try."""
        sent = replace(unsent(placement), attempted_at=self._clock.now())
        create = partial(
            self._api_of(placement.location).call_once, "create_instance", **order
        )
        begun = await self._journal.create(launch_id, sent, create)
        bought = replace(
            sent,
            instance_id=reference_of(begun),
            operation_id=begun.get("id"),
        )
        self._journal.put(launch_id, bought)

    async def _order(self, launch_id: LaunchId, placement: Placement) -> dict[str, Any]:
        """Return the arguments of the create call."""
        api, settings = self._api_of(placement.location), self._settings
        read = self._remembered.of(api)
        types = read_types(await read("list_instance_types"))
        chosen = find_type(types, placement.type_name, placement.location)
        template = await template_in(read, settings, placement.location)
        group = await self._firewall.ensure(api)
        lease_end = self._clock.wall() + settings.lease
        return {
            "name": f"ollama-proxy-{launch_id}",
            "disk_size": settings.disk_size,
            "instance_type": {"id": chosen.id},
            "template": {"id": template.id},
            "security_groups": [{"id": group}],
            "public_ip_assignment": "inet4",
            "labels": self._tags.of(
                launch_id,
                lease_end=lease_end,
                spec=settings.spec_of(placement.type_name, self._environment),
            ),
            "user_data": user_data(
                self._authority.issue(launch_id),
                Installation(
                    settings.ollama_version,
                    chosen.driver,
                    settings.engine,
                    settings.ollama_sha256 or "",
                    self._models,
                    self._environment,
                ),
                token=self._authority.token(launch_id),
                dead_man_s=settings.dead_man_timeout,
            ),
            "auto_start": True,
        }
