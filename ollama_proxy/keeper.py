"""Keep the catalogue true: ask each instance that comes up, and after changes."""

import asyncio

import structlog

from ollama_proxy import log
from ollama_proxy.catalogue import Catalogue
from ollama_proxy.errors import StoreError
from ollama_proxy.pool import Pool
from ollama_proxy.probe import PreparationError, Probe
from ollama_proxy.record import Record, State
from ollama_proxy.store import Store
from ollama_proxy.tasks import TaskOwner

_ASK_TIMEOUT_S = 60.0


class CatalogueKeeper:
    """Refreshes the catalogue in the background, one refresh at a time."""

    def __init__(
        self, pool: Pool, *, probe: Probe, catalogue: Catalogue, store: Store
    ) -> None:
        self._pool = pool
        self._probe = probe
        self._catalogue = catalogue
        self._store = store
        self._stale = asyncio.Event()
        self._tasks = TaskOwner()
        self._log = structlog.get_logger()
        for controller in pool.controllers:
            controller.observe(self._on_transition)

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
        while True:
            await self._stale.wait()
            self._stale.clear()
            upstream = self._pool.ready_upstream()
            if upstream is None:
                continue
            try:
                async with asyncio.timeout(_ASK_TIMEOUT_S):
                    contents = await self._probe.contents(upstream)
                self._catalogue.replace(contents)
                self._store.put_catalogue(contents)
            except (PreparationError, StoreError, TimeoutError, ValueError) as error:
                self._log.warning(log.CATALOGUE_FAILED, error=str(error))
            else:
                self._log.debug(log.CATALOGUE_REFRESHED, models=len(contents.shows))
