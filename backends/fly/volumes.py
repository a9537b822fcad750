"""Manage the volumes of a deployment: one per machine, and one while there is none.

Names of volumes need not be unique, and a list may be empty or late. So the id of each
new volume is recorded, and looked up if a list lacks it. At every begin and end of a
launch the superfluous volumes are computed from the existing ones. No other state is
needed, so a process may be killed at any call.
"""

import contextlib
from collections.abc import Collection, Sequence

from ollama_proxy.backends.base.provisioning_journal import ProvisioningJournal
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.config import guest_of
from ollama_proxy.backends.fly.failures import NoAppError
from ollama_proxy.backends.fly.machines import Volume
from ollama_proxy.backends.fly.places import Place
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    NotFoundError,
    SpecError,
    StoreError,
)


def surplus(
    volumes: Sequence[Volume], *, held: Collection[str], best: str | None, keep: bool
) -> list[Volume]:
    """Return the superfluous ones of our volumes, oldest first.

    A volume of a machine is needed; ``held``: volumes that machines are known to have,
    even if the list does not show it. If no machine has one and ``keep``, one is left
    for the next machine: ``best``, which served last, else the oldest.
    """
    spare = [
        one for one in volumes if not one.attached_machine_id and one.id not in held
    ]
    if keep and len(spare) == len(volumes):
        return best_first(spare, best)[1:]
    return spare


def best_first(volumes: Sequence[Volume], best: str | None) -> list[Volume]:
    """Return volumes with the one first that served last, then the oldest."""
    return sorted(volumes, key=lambda one: (one.id != best, one.created_at, one.id))


class Volumes:
    """Makes, finds and destroys the volumes of one deployment.

    ``reserved``: volumes that a machine is being made with, by launches in parallel.
    """

    def __init__(
        self,
        settings: FlySettings,
        *,
        api: FlyApi,
        name: str,
        journal: ProvisioningJournal,
    ) -> None:
        self._settings = settings
        self._api = api
        self._name = name
        self._journal = journal
        self.reserved: set[str] = set()

    async def ours(self) -> list[Volume]:
        """Return this deployment's volumes, except deleted ones, the best first.

        A recorded one that no list shows is looked up by its id. Raises `SpecError` if
        the recorded ones are in another app, where they can't be seen.
        """
        self.refuse_another_app()
        listed: list[Volume] = []
        with contextlib.suppress(NoAppError):
            listed = await self._api.volumes()
        there = {one.id: one for one in listed if one.name == self._name}
        for volume_id in self._journal.book.volumes:
            if volume_id not in there:
                with contextlib.suppress(NotFoundError):
                    there[volume_id] = await self._api.volume(volume_id)
        ours = [one for one in there.values() if not one.is_leaving]
        with contextlib.suppress(StoreError):  # a full disk must not prevent a start
            self._note({one.id for one in ours})
        return best_first(ours, self._journal.book.volume)

    def refuse_another_app(self) -> None:
        """Raise `SpecError` if the volumes that were noted are of another app."""
        book, app = self._journal.book, self._api.app
        if book.volumes and book.volumes_app not in {None, app}:
            raise SpecError(
                f"FLY_APP is {app!r}, and the app {book.volumes_app!r} has volumes of"
                f" this state folder ({', '.join(book.volumes)}), which are billed:"
                f" set FLY_APP={book.volumes_app} and run `ollama-proxy delete`, or"
                " leave them there and set another OLLAMA_PROXY_STATE_DIR"
            )

    async def spare(self) -> list[Volume]:
        """Return those of our volumes that no machine has, the best first."""
        return [one for one in await self.ours() if not one.attached_machine_id]

    async def at(self, place: Place) -> str | None:
        """Return the volume of a place, made if need be."""
        if not place.needs_new_volume:
            return place.volume
        if place.copy_of is not None:
            with contextlib.suppress(SpecError):  # no copy: pull again
                return await self.make(place.region, copy_of=place.copy_of)
        return await self.make(place.region)

    async def make(self, region: str, *, copy_of: str | None = None) -> str:
        """Make a volume and return its id, where there is room for the machine, too."""
        made = await self._api.create_volume(
            self._name,
            region,
            self._settings.volume_gb,
            guest=guest_of(self._settings),
            source=copy_of,
        )
        self._note({*self._journal.book.volumes, made.id})
        return made.id

    async def drop(self, volume_id: str) -> None:
        """Destroy a volume that was made in vain; what fails is mended by `settle`."""
        with contextlib.suppress(BackendError):
            await self._api.delete_volume(volume_id)

    def note_served(self, volume_id: str | None) -> None:
        """Remember which volume has the models: that of the machine that serves."""
        if volume_id != self._journal.book.volume:
            self._journal.note(volume=volume_id)

    async def needless(self, *, held: Collection[str]) -> list[Volume]:
        """Return the volumes that are not needed; ``held``: what machines have."""
        return self._needless(await self.ours(), held)

    def _needless(self, ours: Sequence[Volume], held: Collection[str]) -> list[Volume]:
        keep = self._settings.keep_volume and self._settings.volume_gb > 0
        best = self._journal.book.volume
        return surplus(ours, held={*held, *self.reserved}, best=best, keep=keep)

    async def settle(self, *, held: Collection[str]) -> bool:
        """Destroy superfluous volumes; tell whether there was one volume at most.

        ``held``: volumes that machines are known to have. Raises an error after all
        were tried.
        """
        ours = await self.ours()
        problem: BackendError | None = None
        for volume in self._needless(ours, held):
            try:
                await self._api.delete_volume(volume.id)
            except (NotFoundError, ConflictError, CapacityError):
                continue  # gone, or still being detached
            except BackendError as error:
                problem = error
        if problem is not None:
            raise problem
        return len(ours) <= 1

    def _note(self, volumes: Collection[str]) -> None:
        """Note which volumes there are, and in which app."""
        known, book, app = tuple(sorted(volumes)), self._journal.book, self._api.app
        if known != book.volumes or (known and app != book.volumes_app):
            self._journal.note(volumes=known, volumes_app=app)
