"""See what others have in the same cloud: other deployments, and a copy of this one."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import BackendError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Backend, Belonging, SupportsOwners
from ollama_proxy.fleet.owners import (
    others,
    removal,
    shows_a_proxy,
    twin_words,
    twins,
    with_removal,
)

_LOOK_EVERY_S: Final = 600.0
_LOOK_AGAIN_S: Final = 60.0
_CALL_S: Final = 120.0
_MOST_TOLD = 50


class Neighbours:
    """Looks every ten minutes for things with our product's label; changes nothing.

    ``remembers``: tells whether a launch was begun from this state folder.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        owner_id: str,
        remembers: Callable[[LaunchId], bool],
        clock: Clock,
    ) -> None:
        self._backends = [one for one in backends if isinstance(one, SupportsOwners)]
        self._owner_id = owner_id
        self._remembers = remembers
        self._clock = clock
        self._others: list[Belonging] = []
        self._twins: list[Belonging] = []
        self._told: set[str] = set()
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Look until cancelled; ignore a look that fails."""
        while self._backends:
            try:
                self._note(await self._belongings())
            except (BackendError, TimeoutError) as error:
                self._log.info(log.SWEEP_FAILED, look="other owners", error=str(error))
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _belongings(self) -> list[Belonging]:
        """Ask every cloud; what two offers of one account show counts once."""
        found: dict[str, Belonging] = {}
        for backend in self._backends:
            async with asyncio.timeout(_CALL_S):
                found |= {one.id: one for one in await backend.belongings()}
        return list(found.values())

    def _note(self, found: list[Belonging]) -> None:
        """Keep the findings, and log new ones."""
        now = self._clock.wall()
        self._others = others(found, self._owner_id)
        self._twins = twins(found, self._owner_id, self._remembers, now)
        for one in self._others[:_MOST_TOLD]:
            if one.id not in self._told:
                self._log.warning(log.OWNERS_OTHER, reason=with_removal(one, now))
        for one in self._twins:
            if one.id not in self._told:
                self._log.warning(log.STATE_COPIED, reason=twin_words(one))
        self._told = {one.id for one in (*self._others, *self._twins)}

    def others(self) -> list[dict[str, Any]]:
        """Return what belongs to other owners, as ``/status`` has it."""
        now = self._clock.wall()
        return [
            {
                "name": one.name,
                "owner": one.owner_id or None,
                "launch_id": one.launch_id,
                "state": one.state,
                "age_s": None if one.made_at is None else round(now - one.made_at),
                "price_per_hour": one.per_hour,
                "has_proxy": shows_a_proxy(one, now),
                "command": removal(one, now) or None,
            }
            for one in self._others[:_MOST_TOLD]
        ]

    @property
    def problem(self) -> str | None:
        """Return the fault while a proxy uses a copy of our state folder."""
        now = self._clock.wall()
        living = [one for one in self._twins if shows_a_proxy(one, now)]
        return twin_words(living[0]) if living else None
