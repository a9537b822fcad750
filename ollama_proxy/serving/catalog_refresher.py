"""Keep the catalogue true: ask each instance that comes up, and after changes."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.lifecycle.record import Record, State
from ollama_proxy.core.ollama.catalog import Catalog
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.readiness import PreparationError, Probe
from ollama_proxy.store.ports import CatalogStore


class CatalogRefresher:
    """Refreshes the catalogue in the background, one refresh at a time.

    A failed refresh is repeated, after pauses of 1 to 60 s, as long as an instance is
    ready. ``asking`` is called before each request for the list; the function it
    returns is called once the list is there.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        probe: Probe,
        catalogue: Catalog,
        place: CatalogStore,
        asking: Callable[[], Callable[[], None]],
        timing: Timing = STANDARD,
    ) -> None:
        self._timing = timing
        self._pool = pool
        self._probe = probe
        self._catalogue = catalogue
        self._place = place
        self._asking = asking
        self._stale = asyncio.Event()
        self._tasks = TaskOwner()
        self._log = structlog.get_logger()
        for controller in pool.controllers:
            controller.subscribe(self._on_transition)

    def start(self) -> None:
        """Begin to refresh when asked."""
        self._tasks.spawn(self._run(), name="catalogue")

    async def aclose(self) -> None:
        """Stop refreshing."""
        await self._tasks.aclose()

    def models_changed(self) -> None:
        """Have the catalogue refreshed soon."""
        self._stale.set()

    def _on_transition(self, _before: Record, after: Record) -> None:
        if after.state is State.READY:
            self._stale.set()

    async def _run(self) -> None:
        pause_s = self._timing.catalog_pause_s
        while True:
            await self._stale.wait()
            self._stale.clear()
            if await self._refresh():
                pause_s = self._timing.catalog_pause_s
                continue
            with contextlib.suppress(TimeoutError):  # a change ends the pause
                async with asyncio.timeout(pause_s):
                    await self._stale.wait()
            pause_s = min(pause_s * 2, self._timing.catalog_pause_max_s)
            self._stale.set()

    async def _refresh(self) -> bool:
        """Ask the instance that is ready, if one is; False if that failed."""
        upstream = self._pool.ready_upstream()
        if upstream is None:
            return True
        told = self._asking()
        try:
            async with asyncio.timeout(self._timing.catalog_ask_s):
                contents = await self._probe.contents(upstream)
            self._catalogue.replace(contents)
            told()
            self._place.put_contents(contents)
        except (PreparationError, StoreError, TimeoutError, *UNREADABLE) as error:
            self._log.warning(log.CATALOGUE_FAILED, error=str(error))
            return False
        self._log.debug(log.CATALOGUE_REFRESHED, models=len(contents.shows))
        return True
