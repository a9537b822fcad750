"""List, delete or adopt what other deployments left: for ``sweep --owner`` and kin.

It works beside a running proxy too: then it only reads the owner id from the state
folder, and writes the journal through a connection of its own.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock, open_clock
from ollama_proxy.base.errors import (
    BackendError,
    CredentialsError,
    SpecError,
    StartupError,
    TransientError,
)
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.cli.offline import require_date
from ollama_proxy.cli.opened_offers import opened_backends
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Belonging, SupportsOwners
from ollama_proxy.fleet.owners import (
    Judgement,
    described,
    judge,
    others,
    with_removal,
)
from ollama_proxy.store.opening import open_store
from ollama_proxy.store.ports import Store
from ollama_proxy.store.sqlite.journal import add_line_beside
from ollama_proxy.store.state_folder import STATE_FILE, read_owner

_LIMIT_S = 900.0

Ask = Callable[[str], None]
"""Asks a person; raises if the answer is no, or there is no terminal."""

Tell = Callable[[str], None]
"""Prints a line."""


class OwnerSweep:
    """Shows which owner has what in a cloud, and deletes what the person agrees to.

    ``note`` writes a line of the journal.
    """

    def __init__(
        self,
        backend: SupportsOwners,
        *,
        owner_id: str | None,
        clock: Clock,
        note: Callable[[Transition], None],
        timing: Timing = STANDARD,
    ) -> None:
        self._backend = backend
        self._own_id = owner_id
        self._clock = clock
        self._note = note
        self._timing = timing
        self._log = structlog.get_logger()

    async def has(self, owner_id: str) -> bool:
        """Tell whether an owner has anything here."""
        found = await self._backend.belongings()
        return any(one.owner_id == owner_id for one in found)

    async def listed(self) -> list[str]:
        """Return everything in words: of others with the command that removes it."""
        found, now = await self._backend.belongings(), self._clock.wall()
        ours = [one for one in found if one.owner_id == self._own_id]
        theirs = others(found, self._own_id or "")
        lines = [f"{described(one, now)}: of this deployment" for one in ours]
        return lines + [with_removal(one, now) for one in theirs]

    async def judged(
        self, owner_id: str, named: Collection[LaunchId], tell: Tell
    ) -> Judgement:
        """Return what of an owner may be deleted, and tell it."""
        if owner_id == self._own_id:
            raise StartupError(
                f"the owner {owner_id} is this deployment itself; `ollama-proxy sweep`"
                " stops what it has forgotten, `ollama-proxy delete` deletes everything"
            )
        now = self._clock.wall()
        found = judge(await self._backend.belongings(), owner_id, named, now)
        for one in found.refused:
            tell(f"left alone: {with_removal(one, now)}")
        return found

    async def _still(
        self,
        found: Judgement,
        owner_id: str,
        named: Collection[LaunchId],
        tell: Tell,
    ) -> Judgement:
        """Return what is still valid of a judgement: a proxy may have started since.

        Things that appeared since were not part of the question, so they stay.
        """
        now = self._clock.wall()
        again = judge(await self._backend.belongings(), owner_id, named, now)
        asked_about = {one.id for one in found.deleted}
        for one in again.refused:
            if one.id in asked_about:
                tell(f"left alone: {with_removal(one, now)}")
        deleted = [one for one in again.deleted if one.id in asked_about]
        return Judgement(deleted, again.refused)

    async def delete(
        self, owner_id: str, named: Collection[LaunchId], tell: Tell, ask: Ask
    ) -> bool:
        """Delete what an owner has, once ``ask`` agrees; False if something is left."""
        found = await self.judged(owner_id, named, tell)
        for one in found.deleted:
            tell(f"to be deleted: {described(one, self._clock.wall())}")
        if found.deleted:
            ask(f"Delete {len(found.deleted)} thing(s) of the owner {owner_id}?")
            found = await self._still(found, owner_id, named, tell)
        problem: BackendError | None = None
        for one in found.deleted:
            try:
                await self._until_gone(one)
            except BackendError as error:
                problem = error  # the others are deleted all the same
                continue
            self._write_down("OwnerSwept", one)
            tell(f"deleted {one.name}")
        if problem is not None:
            raise problem
        if not found.deleted and not found.refused:
            tell(f"nothing carries the owner id {owner_id}")
        return not found.refused

    async def _until_gone(self, one: Belonging) -> None:
        """Repeat a deletion until the cloud shows the thing no more; end if refused."""
        said = "it is there still"
        try:
            async with asyncio.timeout(_LIMIT_S):
                # A loop of its own instead of retries: only the cloud's answer ends it,
                # and the error at the limit quotes the last failure.
                while True:
                    try:
                        if await self._backend.discard(one):
                            return
                    except (CredentialsError, SpecError):
                        raise
                    except BackendError as error:
                        said = str(error)
                    await asyncio.sleep(self._timing.discard_pause_s)
        except TimeoutError:
            raise TransientError(
                f"{one.name} is not gone after {_LIMIT_S:.0f} s ({said}) and may cost"
                " money; look into the cloud's console"
            ) from None

    async def estrange(
        self, owner_id: str, named: Collection[LaunchId], tell: Tell, ask: Ask
    ) -> bool:
        """Prepare what an owner has for another state folder; False if it is in use.

        Its instances can't be reached any more, since their keys were in the lost
        folder: each is replaced, or deleted by the next sweep. The gain is the volumes
        with their models.
        """
        found = await self.judged(owner_id, named, tell)
        if found.refused:
            return False
        if not found.deleted:
            raise StartupError(f"nothing carries the owner id {owner_id}")
        for one in found.deleted:
            tell(f"to be adopted: {described(one, self._clock.wall())}")
        ask(f"Take over {len(found.deleted)} thing(s) of the owner {owner_id}?")
        found = await self._still(found, owner_id, named, tell)
        if found.refused:
            return False
        for one in found.deleted:
            await self._backend.estrange(one)
            self._write_down("OwnerAdopted", one)
        return True

    async def refuse_if_owning(self, launches: Collection[LaunchId]) -> None:
        """Raise `StartupError` if this deployment has anything that it would lose."""
        found = await self._backend.belongings()
        ours = [one.name for one in found if one.owner_id == self._own_id]
        ours += [f"launch {name}" for name in launches]
        if ours:
            raise StartupError(
                f"this state folder has things of its own ({', '.join(ours)}), which"
                " would be forgotten; run `ollama-proxy delete` or `stop`"
                " first, or set OLLAMA_PROXY_STATE_DIR to a new folder"
            )

    def _write_down(self, event: str, one: Belonging) -> None:
        line = Transition(
            at=self._clock.wall(),
            slot="owners",
            launch_id=one.launch_id,
            before="cold",
            after="cold",
            event=event,
            fault=f"{one.name} of the owner {one.owner_id}",
        )
        self._note(line)
        self._log.warning(
            log.OWNER_CHANGED, what=event, thing=one.name, owner=one.owner_id
        )


@asynccontextmanager
async def owner_sweep(
    settings: Settings, *, timing: Timing = STANDARD
) -> AsyncIterator[list[OwnerSweep]]:
    """Open the clouds of the settings, beside a running proxy or without one.

    Raises `StartupError` without a date, which leases are compared with, or if the
    backend does not know owners.
    """
    async with AsyncExitStack() as stack:
        try:
            store = stack.enter_context(closing(open_store(settings.state_dir)))
            owner_id: str | None = store.owner_id
            note, alone = store.add_line, settings
        except StartupError:  # a running proxy holds the folder
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            store = stack.enter_context(closing(open_store(folder)))
            owner_id = read_owner(settings.state_dir)
            path = settings.state_dir / STATE_FILE

            def note(line: Transition) -> None:
                add_line_beside(path, line)

            alone = settings.model_copy(update={"state_dir": folder})
        yield await _opened(stack, alone, store, owner_id, note, timing)


async def _opened(
    stack: AsyncExitStack,
    settings: Settings,
    store: Store,
    owner_id: str | None,
    note: Callable[[Transition], None],
    timing: Timing = STANDARD,
) -> list[OwnerSweep]:
    require_date("no lease can be judged")
    clock = open_clock(store)
    opening = opened_backends(settings, store, clock)
    backends = await stack.enter_async_context(opening)
    knowing = [one for one in backends.values() if isinstance(one, SupportsOwners)]
    if not knowing:
        names = ", ".join(repr(offer.backend) for offer in settings.offers)
        raise StartupError(f"the backend {names} has nothing that outlives its proxy")
    return [
        OwnerSweep(one, owner_id=owner_id, clock=clock, note=note, timing=timing)
        for one in knowing
    ]


async def having(sweeps: list[OwnerSweep], owner_id: str) -> list[OwnerSweep]:
    """Return those where an owner has anything; the first if nowhere."""
    if len(sweeps) == 1:
        return sweeps
    return [one for one in sweeps if await one.has(owner_id)] or sweeps[:1]


async def adopt(
    settings: Settings,
    owner_id: str,
    named: Collection[LaunchId],
    tell: Tell,
    ask: Ask,
) -> bool:
    """Make an empty state folder continue as another deployment.

    False if things with that owner id are in use. Raises `StartupError` while a proxy
    runs on the folder, or if the folder's own deployment has anything in the cloud or
    on record.
    """
    with closing(open_store(settings.state_dir)) as store:
        async with AsyncExitStack() as stack:
            sweeps = await _opened(
                stack, settings, store, store.owner_id, store.add_line
            )
            for sweep in sweeps:
                await sweep.refuse_if_owning(store.launch_ids())
            for sweep in await having(sweeps, owner_id):
                if not await sweep.estrange(owner_id, named, tell, ask):
                    return False
            store.take_over(owner_id)
    tell(f"the state folder goes on as the owner {owner_id}")
    return True
