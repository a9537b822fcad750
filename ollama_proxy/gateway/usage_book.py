"""Add up what each key uses, and write it in batches.

A process that is killed loses the batch that was not written yet: at most what was used
in ten seconds. The limits of keys do not depend on it: see `key_limits`.

Small requests are added up a dozen at a time: each takes 3 µs then. Alone, at its end,
it would take 10 µs, since code and data have left the processor's caches.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection
from typing import Final

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.access.days import utc_day
from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.core.access.token_figures import Tokens
from ollama_proxy.core.access.usage import (
    BY_ALL,
    DAYS_KEPT,
    MODELS_OF_KEY,
    NO_MODEL,
    OTHER_MODELS,
    ROWS_KEPT,
    UsageField,
    UsageRow,
    row_model,
    rows_since,
    sum_rows,
)
from ollama_proxy.store.ports import UsageStore

BATCH_ROWS: Final = 500
"""How many rows are added up before they are written ahead of time."""

MOST_LATE: Final = 16
"""How many requests are added up together."""

UNWRITTEN_ROWS: Final = 5000
"""How many rows are held while the store can't be written; more are lost."""

_DAY_S = 86_400.0
_REMEMBERED = 1000


class _Tally:
    """Adds up one row; quicker than a new row for each request."""

    __slots__ = (
        "estimated",
        "identity",
        "key_name",
        "output_tokens",
        "prompt_tokens",
        "refused",
        "requests",
        "seconds",
    )

    def __init__(self, identity: tuple[str, KeyId, str]) -> None:
        self.identity = identity
        self.key_name = ""
        self.requests = self.refused = 0
        self.prompt_tokens = self.output_tokens = self.estimated = 0
        self.seconds = 0.0

    def row(self) -> UsageRow:
        """Return it as a row."""
        day, key_id, model = self.identity
        return UsageRow(
            day,
            key_id,
            self.key_name,
            model,
            self.requests,
            self.prompt_tokens,
            self.output_tokens,
            self.estimated,
            self.seconds,
            self.refused,
        )


class UsageBook:
    """Holds what was used since the last write, by day, key and model.

    ``observe`` is called with each row that is written, for the metrics.
    """

    def __init__(
        self,
        store: UsageStore,
        clock: Clock,
        observe: Callable[[UsageRow], None],
        *,
        timing: Timing = STANDARD,
    ) -> None:
        self._store = store
        self._clock = clock
        self._observe = observe
        self._timing = timing
        self._unwritten: dict[tuple[str, str, str], _Tally] = {}
        # By the name as it was asked for, which saves the look-up of its row.
        self._of_names: dict[tuple[str, str], _Tally] = {}
        self._late: list[Callable[[], None]] = []
        self._is_adding = False
        self._day_ends_at = -math.inf
        self._day, self._day_number = "", -math.inf
        self._models: dict[KeyId, set[str]] = {}
        self._trimmed_at = -math.inf
        self._is_used, self._is_due = asyncio.Event(), asyncio.Event()
        self._tasks = TaskOwner()
        self._log = structlog.get_logger()

    def start(self) -> None:
        """Begin to write what is added, in batches."""
        self._tasks.spawn(self._run(), name="usage")

    async def aclose(self) -> None:
        """Write what is left, and end."""
        await self._tasks.aclose()
        self.flush()

    def add(
        self, key: Key, model: str, tokens: Tokens, seconds: float, *, is_served: bool
    ) -> None:
        """Add a request that was sent to an instance.

        ``is_served``: the answer shows that the model exists. A client may invent any
        number of names, so others get no row.
        """
        tally = self._tally(key, model, is_served=is_served)
        tally.requests += 1
        tally.prompt_tokens += tokens.prompt
        tally.output_tokens += tokens.output
        tally.estimated += tokens.estimated
        tally.seconds += max(seconds, 0.0)

    def later(self, add: Callable[[], None], now: float) -> None:
        """Have a request that has ended added soon, by a call of ``add``.

        ``now``: when it ended, in seconds of the event loop. It counts for today, and
        is added before `usage` or `unwritten` return. What ``add`` holds stays in
        memory until then, for ten seconds at most.
        """
        if not self._late or now >= self._day_ends_at:
            self._today()  # which adds those of yesterday
            next_day = (self._day_number + 1) * _DAY_S
            self._day_ends_at = now + next_day - self._clock.wall()
            self._is_used.set()
        self._late.append(add)
        if len(self._late) >= MOST_LATE:
            self._add_late()

    def _add_late(self) -> None:
        """Add the requests that wait for it, for the day on which they ended."""
        late, self._late = self._late, []
        self._is_adding = True
        try:
            for add in late:
                try:
                    add()
                except Exception:
                    self._log.exception(log.TASK_CRASHED, task="usage")
        finally:
            self._is_adding = False

    def refuse(self, key: Key, model: str = "") -> None:
        """Add a request that was refused because of its key."""
        self._tally(key, model, is_served=False).refused += 1

    def usage(
        self, days: int, key_id: KeyId | None, by: Collection[UsageField]
    ) -> list[UsageRow]:
        """Return the sums of the last days, today included, of one key or of all.

        Raises `StoreError`.
        """
        since = utc_day(self._clock.wall() - (days - 1) * _DAY_S)
        written = self._store.usage(since, key_id, by)
        unwritten = rows_since(self.unwritten(), since, key_id)
        return sum_rows([*written, *unwritten], by)

    def unwritten(self) -> list[UsageRow]:
        """Return what is not written yet, and was not observed."""
        self._add_late()
        return [tally.row() for tally in self._unwritten.values()]

    def flush(self) -> None:
        """Write what was added since the last time; it is kept if that fails."""
        rows = self.unwritten()
        if not rows:
            return
        try:
            self._store.add_usage(rows)
        except StoreError as error:
            self._log.warning(log.USAGE_UNWRITTEN, error=str(error))
            return
        self._unwritten.clear()
        self._of_names.clear()
        for row in rows:
            self._observe(row)

    async def _run(self) -> None:
        """Write while there is something to write; a proxy at rest is not woken."""
        while True:
            await self._is_used.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.usage_flush_s):
                    await self._is_due.wait()
            self._is_due.clear()
            self.flush()
            if not self._unwritten:
                self._is_used.clear()
            self._trim()

    def _trim(self) -> None:
        """Have the store forget what is old, once an hour."""
        now = self._clock.now()
        if now - self._trimmed_at < self._timing.usage_trim_s:
            return
        self._trimmed_at = now
        since = utc_day(self._clock.wall() - (DAYS_KEPT - 1) * _DAY_S)
        with contextlib.suppress(StoreError):  # `flush` reports it
            self._store.trim_usage(since, ROWS_KEPT)

    def _tally(self, key: Key, name: str, *, is_served: bool) -> _Tally:
        """Return what a request of a key for a model is added to."""
        day = self._day if self._is_adding else self._today()
        asked = (key.id, name)
        tally = self._of_names.get(asked)
        if tally is None:
            model = self._row_of(day, key.id, row_model(name), is_served=is_served)
            tally = self._of_row((day, key.id, model))
            if is_served and len(self._of_names) < _REMEMBERED:
                self._of_names[asked] = tally
        tally.key_name = key.name
        return tally

    def _of_row(self, identity: tuple[str, KeyId, str]) -> _Tally:
        """Return the tally of a row; beyond `UNWRITTEN_ROWS` it is not written."""
        tally = self._unwritten.get(identity)
        if tally is None:
            tally = _Tally(identity)
            if len(self._unwritten) < UNWRITTEN_ROWS:
                self._unwritten[identity] = tally
                self._is_used.set()
            if len(self._unwritten) == BATCH_ROWS:
                self._is_due.set()
        return tally

    def _today(self) -> str:
        """Return the day of UTC, which is named once."""
        number = self._clock.wall() // _DAY_S
        if number != self._day_number:
            self._add_late()
            self._day_number, self._day = number, utc_day(number * _DAY_S)
            self._models.clear()
            self._of_names.clear()
        return self._day

    def _row_of(self, day: str, key_id: KeyId, model: str, *, is_served: bool) -> str:
        """Return the model of the row that a request is added to."""
        known = self._models_of(day, key_id)
        if model in known:
            return model
        if not model or not is_served:
            return NO_MODEL
        if len(known) >= MODELS_OF_KEY:
            return OTHER_MODELS
        known.add(model)
        return model

    def _models_of(self, day: str, key_id: KeyId) -> set[str]:
        """Return the models of a key that have a row today, after a restart as well."""
        known = self._models.get(key_id)
        if known is None:
            known = self._models[key_id] = set()
            with contextlib.suppress(StoreError):
                rows = self._store.usage(day, key_id, BY_ALL)
                known.update(row.model for row in rows if row.day == day)
                known -= {NO_MODEL, OTHER_MODELS}
        return known
