"""Set up what a machine needs around it: the app, its addresses, and volumes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_fixed

from ollama_proxy.backends.base.provisioning_journal import ProvisioningJournal
from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.failures import AppTakenError, NoAppError
from ollama_proxy.backends.fly.image import how_to_push, is_own, pinned
from ollama_proxy.backends.fly.machines import STOPPED, Machine
from ollama_proxy.backends.fly.regions import regions_in_words
from ollama_proxy.backends.fly.settings import DISK_GB, HOURS_A_MONTH, FlySettings
from ollama_proxy.backends.fly.volumes import Volumes
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    OutcomeUnknownError,
    SpecError,
    TransientError,
)

_ADDRESSES = {"public": ("shared_v4", "v6"), "flycast": ("private_v6",), "6pn": ()}
_DEDICATED_V4 = 2.0
_LIMIT_S = 600.0
_SHOWN_LATE_S = 60.0


class AppSetup:
    """Sets up and clears what costs little and stays."""

    def __init__(
        self,
        settings: FlySettings,
        *,
        api: FlyApi,
        journal: ProvisioningJournal,
        volumes: Volumes,
        clock: Clock,
        timing: CloudTiming = STANDARD,
    ) -> None:
        self._settings = settings
        self._api = api
        self._journal = journal
        self._volumes = volumes
        self._clock = clock
        self._pause_s = timing.setup_pause_s

    def idle_price_per_hour(self, *, machines: int) -> float:
        """Return the most that kept things cost: disks of machines, and the volume."""
        settings = self._settings
        volume_gb = settings.volume_gb if machines or settings.keep_volume else 0
        return settings.storage_per_hour(machines * DISK_GB + volume_gb)

    async def kept(self, machines: Sequence[Machine]) -> list[str]:
        """Return each thing of ours, in words, with what it costs a month."""
        price = self._settings.storage_price
        lines = []
        for machine in machines:
            is_stopped = machine.state in STOPPED
            cost = (
                f"at most {DISK_GB * price:.2f} a month"
                if is_stopped
                else "by the second"
            )
            named = f"machine {machine.id} in {machine.region}"
            lines.append(f"{named}, {self._settings.size}, {machine.state}: {cost}")
        for volume in await self._volumes.ours():
            cost = f"{volume.size_gb * price:.2f} a month"
            lines.append(
                f"volume {volume.id} in {volume.region}, {volume.size_gb} GB: {cost}"
            )
            for snapshot in await self._api.snapshots(volume.id):
                days = snapshot.get("retention_days", "unknown")
                named = f"snapshot {snapshot.get('id')} of volume {volume.id}"
                lines.append(f"{named}: kept for {days} days, 0.08 per GB and month")
        try:
            addresses = await self._api.addresses()
        except NoAppError:
            return lines
        return lines + [_address_in_words(address) for address in addresses]

    async def deploy(self, image: str) -> AsyncIterator[str]:
        """Make app, addresses and volume, each only if it is not there."""
        if self._settings.image not in {None, image}:
            raise SpecError(
                f"FLY_IMAGE is {self._settings.image!r}, which launches would use and"
                f" not {image!r}; remove the setting, or deploy that image"
            )
        self._volumes.refuse_another_app()
        named = await pinned(image)
        regions_in_words(await self._api.all_regions(), self._settings)
        async for step in self._ensure_app():
            yield step
        async for step in self._ensure_addresses():
            yield step
        if self._settings.volume_gb and not await self._volumes.ours():
            size, region = self._settings.volume_gb, self._settings.region
            yield f"volume of {size} GB in {region}"
            await self._volumes.make(region)
        self._journal.note(image=named)
        price = self.idle_price_per_hour(machines=1) * HOURS_A_MONTH
        if is_own(image):
            yield how_to_push(image)
        yield f"{named} is deployed; while idle it costs at most {price:.2f} a month"

    async def _ensure_addresses(self) -> AsyncIterator[str]:
        """Ask for each address that is missing, noted as ours before and after."""
        for kind in _ADDRESSES[self._settings.access]:
            there = await self._api.addresses()
            self._claim_what_was_asked_for(there)
            if kind in {_kind_of(address) for address in there}:
                continue
            yield f"address {kind}"
            before = tuple(sorted(_ip_of(address) for address in there))
            self._journal.note(address_asked=kind, addresses_before=before)
            given = await self._api.assign(kind)
            if not given:  # Fly's response may be empty: look it up in the list
                self._claim_what_was_asked_for(await self._api.addresses())
            else:
                self._claim(given)

    def _claim_what_was_asked_for(self, there: Sequence[dict[str, object]]) -> None:
        """Take an address for ours whose answer was lost, or that a kill followed."""
        book = self._journal.book
        for address in there if book.address_asked is not None else ():
            ip = _ip_of(address)
            if _kind_of(address) == book.address_asked and (
                ip not in book.addresses_before
            ):
                self._claim(ip)
                return

    def _claim(self, ip: str) -> None:
        known = tuple(sorted({*self._journal.book.addresses, ip}))
        self._journal.note(addresses=known, address_asked=None, addresses_before=())

    async def _ensure_app(self) -> AsyncIterator[str]:
        try:
            await self._api.show_app()
        except NotFoundError:
            yield f"app {self._api.app} in {self._settings.org}"
            await self._create_app()
        except CredentialsError as error:
            raise CredentialsError(
                f"{error}; if the app is not yours, choose another FLY_APP"
            ) from error

    async def _create_app(self) -> None:
        """Make the app, noted as ours beforehand: a killed proxy knows it again."""
        was_asked_for = self._journal.book.app == self._api.app
        self._journal.note(app=self._api.app)
        try:
            await self._api.create_app(self._settings.org)
        except OutcomeUnknownError:
            raise
        except AppTakenError as error:  # perhaps made by us, with a lost response
            await self._look_for_taken(error, was_asked_for=was_asked_for)
        except BackendError:
            if not was_asked_for:
                self._journal.note(app=None)
            raise
        else:
            await self._until_shown()

    async def _look_for_taken(
        self, error: AppTakenError, *, was_asked_for: bool
    ) -> None:
        """Take an app for ours that was asked for before and shows late, if it does."""
        if was_asked_for:
            with contextlib.suppress(NotFoundError, CredentialsError):
                await self._until_shown()
                return
        self._journal.note(app=None)
        raise error

    async def _until_shown(self) -> None:
        """Wait until a new app is known to all of Fly."""
        begun_at = self._clock.now()

        def is_too_late(_state: RetryCallState) -> bool:
            return self._clock.now() - begun_at > _SHOWN_LATE_S

        repeated = AsyncRetrying(
            retry=retry_if_exception_type((NotFoundError, CredentialsError)),
            stop=is_too_late,
            wait=wait_fixed(self._pause_s),
            sleep=asyncio.sleep,
            reraise=True,
        )
        await repeated(self._api.show_app)

    async def remove(self) -> AsyncIterator[str]:
        """Delete volumes, addresses and the app, if we made it; each is looked for."""
        begun_at, said = self._clock.now(), "no answer"
        while volumes := await self._volumes.ours():
            if self._clock.now() - begun_at > _LIMIT_S:
                names = ", ".join(one.id for one in volumes)
                raise TransientError(f"still there: volume {names} ({said}); try again")
            for volume in volumes:
                yield f"deleting volume {volume.id}"
                snapshots = await self._api.snapshots(volume.id)
                if snapshots:
                    yield f"{len(snapshots)} snapshot(s) go when their days are over"
                try:
                    await self._api.delete_volume(volume.id)
                except (TransientError, NotFoundError, OutcomeUnknownError) as error:
                    said = str(error)  # detached late, for example: look again
            await asyncio.sleep(self._pause_s)
        try:
            async for step in self._remove_addresses_and_app():
                yield step
        except NoAppError:
            yield f"the app {self._api.app} is not there"
        self._journal.note(
            image=None, app=None, addresses=(), address_asked=None, addresses_before=()
        )
        yield "nothing of this deployment is left"

    async def _remove_addresses_and_app(self) -> AsyncIterator[str]:
        """Release the addresses that were made here, with the app if that was, too."""
        if self._journal.book.app == self._api.app:
            async for step in self._remove_app():
                yield step
            return
        found = await self._api.addresses()
        self._claim_what_was_asked_for(found)
        there = {_ip_of(one) for one in found}
        for address in sorted(there & {*self._journal.book.addresses}):
            yield f"releasing {address}"
            await self._api.release_address(address)
        yield f"the app {self._api.app} was not made here, so it stays"

    async def _remove_app(self) -> AsyncIterator[str]:
        if others := await self._api.machines():
            left = [one.id for one in others if one.state != "destroyed"]
            if left:
                raise SpecError(
                    f"the app {self._api.app} has machines that are not ours"
                    f" ({', '.join(left)}), so it stays; destroy them first"
                )
        for address in await self._api.addresses():
            yield f"releasing {address.get('ip')}"
            await self._api.release_address(str(address.get("ip")))
        yield f"deleting app {self._api.app}"
        begun_at, said = self._clock.now(), "it was deleted"
        # A loop of its own instead of retries: only the cloud's answer, that there is
        # no such app, ends it.
        while self._clock.now() - begun_at < _LIMIT_S:
            try:
                await self._api.delete_app()
            except ConflictError as error:  # its machines stay listed for a while
                said = str(error)
            except (NotFoundError, CredentialsError):
                return
            with contextlib.suppress(NotFoundError, CredentialsError):
                await self._api.show_app()
                await asyncio.sleep(self._pause_s)
                continue
            return
        raise TransientError(
            f"the app {self._api.app} is still there ({said}); try again"
        )


def _ip_of(address: dict[str, object]) -> str:
    return str(address.get("ip", ""))


def _kind_of(address: dict[str, object]) -> str:
    """Return the kind by which an address was asked for."""
    ip = _ip_of(address)
    if ":" not in ip:
        return "shared_v4" if address.get("shared") else "v4"
    return "private_v6" if ip.lower().startswith("fdaa") else "v6"


def _address_in_words(address: dict[str, object]) -> str:
    kind = _kind_of(address)
    cost = f"{_DEDICATED_V4:.2f} a month" if kind == "v4" else "free"
    return f"address {address.get('ip')} ({kind}): {cost}"
