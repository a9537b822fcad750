"""Buy an instance: what to try, in which order, and the one call."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from ollama_proxy.backends.exoscale.api import ExoscaleApi, reference_of
from ollama_proxy.backends.exoscale.choices import (
    Template,
    check_disk,
    find_template,
    find_type,
    read_templates,
    read_types,
)
from ollama_proxy.backends.exoscale.firewall import Firewall
from ollama_proxy.backends.exoscale.instances import OwnershipTags
from ollama_proxy.backends.exoscale.purchase import Ledger, Placement, Purchase
from ollama_proxy.backends.exoscale.remembered import Read, Remembered
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.backends.exoscale.userdata import Installation, user_data
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    NotFoundError,
    OutcomeUnknownError,
    SpecError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.upstream.certificates import Authority

_NO_ROOM_S = 600.0


async def template_in(read: Read, settings: ExoscaleSettings, zone: str) -> Template:
    """Return the template that is meant; raises `SpecError` if it won't do."""
    private = read_templates(await read("list_templates", visibility="private"))
    public = read_templates(await read("list_templates", visibility="public"))
    template = find_template(private, public, settings.template, zone)
    check_disk(template, settings.disk_size)
    return template


class Provisioner:
    """Buys instances, each with its purchase in the ledger before and after."""

    def __init__(
        self,
        settings: ExoscaleSettings,
        *,
        labels: OwnershipTags,
        firewall: Firewall,
        ledger: Ledger,
        authority: Authority,
        clock: Clock,
        api_of: Callable[[str], ExoscaleApi],
        models: Collection[str] = (),
    ) -> None:
        self._settings = settings
        self._labels = labels
        self._firewall = firewall
        self._ledger = ledger
        self._authority = authority
        self._clock = clock
        self._api_of = api_of
        self._models = models
        self._without_room: dict[Placement, float] = {}
        self._remembered = Remembered(clock)

    def note_full(self, offer: Placement) -> None:
        """Remember that there was no room for an offer."""
        self._without_room[offer] = self._clock.now()

    async def buy(self, launch_id: LaunchId) -> None:
        """Buy the first offer that there is room for.

        One that a zone does not sell is passed over, if there is another.
        """
        problems: list[BackendError] = []
        for offer in self.offers():
            try:
                await self._send(launch_id, offer)
            except (CapacityError, NotFoundError, SpecError) as error:
                problems.append(error)
                self.note_full(offer)
            else:
                return
        full = [error for error in problems if isinstance(error, CapacityError)]
        raise (full or problems)[0]

    def offers(self) -> list[Placement]:
        """Return what to try, in order; what had no room lately comes last."""
        settings = self._settings
        offers = [
            Placement(zone, type_name)
            for zone in (settings.zone, *settings.fallback_zones)
            for type_name in (settings.instance_type, *settings.fallback_types)
        ]
        lately = self._clock.now() - _NO_ROOM_S
        return sorted(
            offers, key=lambda offer: self._without_room.get(offer, 0.0) > lately
        )

    async def _send(self, launch_id: LaunchId, offer: Placement) -> None:
        """Send the one create call, with the purchase noted before and after."""
        try:
            order = await self._order(launch_id, offer)
            send_once = partial(self._send_once, launch_id, offer, order)
            await self._api_of(offer.zone).patience.through(send_once)
        except (CapacityError, NotFoundError, SpecError):
            self._remembered.forget(offer.zone)
            self._firewall.forget()
            raise

    async def _send_once(
        self, launch_id: LaunchId, offer: Placement, order: dict[str, Any]
    ) -> None:
        """Send the create call, noted at the moment of this very try."""
        sent = Purchase(offer, attempted_at=self._clock.now())
        self._ledger.put(launch_id, sent)
        api = self._api_of(offer.zone)
        try:
            begun = await api.call_once("create_instance", **order)
        except OutcomeUnknownError:
            raise
        except BackendError:
            self._ledger.put(launch_id, Purchase(offer))  # refused: nothing was made
            raise
        bought = Purchase(
            offer,
            sent.attempted_at,
            reference_of(begun),
            begun.get("id"),
        )
        self._ledger.put(launch_id, bought)

    async def _order(self, launch_id: LaunchId, offer: Placement) -> dict[str, Any]:
        """Return the arguments of the create call."""
        api, settings = self._api_of(offer.zone), self._settings
        read = self._remembered.of(api)
        types = read_types(await read("list_instance_types"))
        chosen = find_type(types, offer.type_name, offer.zone)
        template = await template_in(read, settings, offer.zone)
        group = await self._firewall.ensure(api)
        lease_end = self._clock.wall() + settings.lease
        return {
            "name": f"ollama-proxy-{launch_id}",
            "disk_size": settings.disk_size,
            "instance_type": {"id": chosen.id},
            "template": {"id": template.id},
            "security_groups": [{"id": group}],
            "public_ip_assignment": "inet4",
            "labels": self._labels.of(
                launch_id, lease_end, settings.spec_of(offer.type_name)
            ),
            "user_data": user_data(
                self._authority.issue(launch_id),
                Installation(
                    settings.ollama_version,
                    chosen.driver,
                    settings.engine,
                    settings.ollama_sha256 or "",
                    self._models,
                ),
                token=self._authority.token(launch_id),
                dead_man_s=settings.dead_man_timeout,
            ),
            "auto_start": True,
        }
