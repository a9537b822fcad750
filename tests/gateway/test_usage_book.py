"""What keys use, added up and written in batches."""

import asyncio
import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.timing import STANDARD
from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.core.access.token_figures import Tokens
from ollama_proxy.core.access.usage import (
    BY_ALL,
    DAYS_KEPT,
    LONGEST_MODEL,
    MODELS_OF_KEY,
    NO_MODEL,
    OTHER_MODELS,
    UsageField,
    UsageRow,
    row_model,
)
from ollama_proxy.gateway.usage_book import (
    BATCH_ROWS,
    MOST_LATE,
    UNWRITTEN_ROWS,
    UsageBook,
)
from ollama_proxy.store.memory import MemoryStore
from ollama_proxy.store.sqlite.store import SqliteStore
from ollama_proxy.store.state_folder import STATE_FILE
from tests.virtual_time import in_virtual_time

NOON = 1_796_040_000.0  # 2026-11-30 12:00 UTC
DAY = "2026-11-30"
LAPTOP = Key(KeyId("0123abcd"), "laptop", bytes(32))
PHONE = Key(KeyId("89abcdef"), "phone", bytes(32))


@dataclass
class FixedClock:
    """A clock that a test sets."""

    date: float = NOON
    moment: float = 0.0

    def now(self) -> float:
        return self.moment

    def wall(self) -> float:
        return self.date


@dataclass
class CountingStore(MemoryStore):
    """A store that counts writes of usage, and may be full."""

    is_full: bool = False
    writes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        MemoryStore.__init__(self)

    def add_usage(self, rows: Collection[UsageRow]) -> None:
        if self.is_full:
            raise StoreError("the state can't be written: disk full")
        self.writes.append(len(rows))
        super().add_usage(rows)


class Rig:
    def __init__(self) -> None:
        self.store, self.clock = CountingStore(), FixedClock()
        self.seen: list[UsageRow] = []
        self.book = self.opened()

    def opened(self) -> UsageBook:
        return UsageBook(self.store, self.clock, self.seen.append)

    def serve(self, model: str = "m", key: Key = LAPTOP) -> None:
        self.book.add(key, model, Tokens(10, 20, 3), 1.5, is_served=True)

    def rows(self, days: int = 1, key_id: KeyId | None = None) -> list[UsageRow]:
        return self.book.usage(days, key_id, BY_ALL)

    def models(self) -> set[str]:
        return {row.model for row in self.rows()}


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_requests_of_a_day_key_and_model_are_one_row(rig: Rig) -> None:
    rig.serve("M")
    rig.serve("m:latest")
    rig.serve("n")
    rig.book.refuse(LAPTOP, "m")

    assert rig.rows() == [
        UsageRow(DAY, LAPTOP.id, "laptop", "m:latest", 2, 20, 40, 6, 3.0, 1),
        UsageRow(DAY, LAPTOP.id, "laptop", "n:latest", 1, 10, 20, 3, 1.5, 0),
    ]


def test_what_is_not_written_yet_is_told_with_what_is(rig: Rig) -> None:
    rig.serve()
    rig.book.flush()
    rig.serve()

    assert rig.rows()[0].requests == 2
    assert rig.book.usage(1, None, {UsageField.KEY})[0].requests == 2
    assert rig.rows(key_id=PHONE.id) == []


def test_a_request_counts_on_the_day_of_utc_on_which_it_ends(rig: Rig) -> None:
    rig.serve()
    rig.clock.date += 12 * 3600
    rig.serve()

    assert [row.day for row in rig.rows(days=2)] == [DAY, "2026-12-01"]
    assert [row.day for row in rig.rows(days=1)] == ["2026-12-01"]


def test_requests_that_are_added_later_are_told_at_once_and_written(rig: Rig) -> None:
    rig.book.later(rig.serve, rig.clock.moment)
    assert rig.rows()[0].requests == 1
    rig.book.later(rig.serve, rig.clock.moment)
    assert rig.book.unwritten()[0].requests == 2
    rig.book.later(rig.serve, rig.clock.moment)
    rig.book.flush()

    assert rig.seen[0].requests == 3
    assert rig.rows()[0].requests == 3


def test_a_request_that_is_added_later_counts_on_the_day_on_which_it_ended(
    rig: Rig,
) -> None:
    rig.book.later(rig.serve, rig.clock.moment)
    rig.clock.date += 12 * 3600
    rig.clock.moment += 12 * 3600
    rig.book.later(rig.serve, rig.clock.moment)
    rig.serve()

    found = [(row.day, row.requests) for row in rig.rows(days=2)]
    assert found == [(DAY, 1), ("2026-12-01", 2)]


def test_a_request_that_is_added_after_midnight_counts_on_the_day_before(
    rig: Rig,
) -> None:
    rig.book.later(rig.serve, rig.clock.moment)
    rig.clock.date += 12 * 3600
    rig.clock.moment += 12 * 3600

    assert [row.day for row in rig.rows(days=2)] == [DAY]


def test_what_is_held_to_be_added_later_is_bounded(rig: Rig) -> None:
    added: list[int] = []
    for number in range(MOST_LATE * 10 + 1):
        rig.book.later(partial(added.append, number), float(number))
        assert number - len(added) < MOST_LATE

    assert added == list(range(MOST_LATE * 10))


def test_a_request_that_can_not_be_added_costs_the_others_nothing(rig: Rig) -> None:
    def fail() -> None:
        raise RuntimeError("a fault")

    with capture_logs() as lines:
        rig.book.later(rig.serve, rig.clock.moment)
        rig.book.later(fail, 0.0)
        rig.book.later(rig.serve, rig.clock.moment)

        assert rig.rows()[0].requests == 2
    assert [line["event"] for line in lines] == ["task.crashed"]


def test_names_that_no_instance_served_get_no_row(rig: Rig) -> None:
    for number in range(1000):
        rig.book.add(LAPTOP, f"evil{number}", Tokens(), 0.0, is_served=False)
        rig.book.refuse(LAPTOP, f"evil{number}")

    assert rig.rows() == [
        UsageRow(DAY, LAPTOP.id, "laptop", NO_MODEL, requests=1000, refused=1000)
    ]


def test_models_of_a_key_beyond_a_number_share_a_row(rig: Rig) -> None:
    for number in range(MODELS_OF_KEY + 10):
        rig.serve(f"m{number}")
    rig.serve("m0")
    rig.serve("theirs", PHONE)

    assert len(rig.models()) == MODELS_OF_KEY + 2
    assert {OTHER_MODELS, "m0:latest", "theirs:latest"} <= rig.models()
    assert sum(row.requests for row in rig.rows()) == MODELS_OF_KEY + 12


def test_a_restart_gives_no_further_models_a_row(rig: Rig) -> None:
    for number in range(MODELS_OF_KEY):
        rig.serve(f"m{number}")
    rig.book.flush()
    rig.book = rig.opened()
    rig.serve("one:more")

    assert "one:more" not in rig.models()
    assert OTHER_MODELS in rig.models()


def test_a_new_day_gives_models_rows_again(rig: Rig) -> None:
    for number in range(MODELS_OF_KEY):
        rig.serve(f"m{number}")
    rig.clock.date += 86_400
    rig.serve("new")

    assert rig.models() == {"new:latest"}


@pytest.mark.parametrize(
    "name", ["x" * 5000, "a\x1b[31mb", "a\nb", "\udc80", "\u202eabc", "", " "]
)
def test_a_name_is_cut_and_safe_to_print(name: str) -> None:
    row = row_model(name)

    assert len(row) <= LONGEST_MODEL
    assert row.isprintable()


def test_each_row_is_observed_once_when_it_is_written(rig: Rig) -> None:
    rig.serve()
    rig.book.refuse(PHONE, "evil")
    assert rig.seen == []
    assert len(rig.book.unwritten()) == 2
    rig.book.flush()
    rig.book.flush()

    assert rig.book.unwritten() == []
    assert [(row.key_name, row.model, row.refused) for row in rig.seen] == [
        ("laptop", "m:latest", 0),
        ("phone", NO_MODEL, 1),
    ]


@in_virtual_time
async def test_requests_are_written_in_batches_and_the_rest_at_the_end() -> None:
    rig = Rig()
    rig.book.start()
    for _ in range(100):
        rig.serve()
        await asyncio.sleep(0.25)
    assert len(rig.store.writes) == 2
    await rig.book.aclose()
    assert len(rig.store.writes) == 3


@in_virtual_time
async def test_a_batch_that_grows_large_is_written_at_once() -> None:
    rig = Rig()
    rig.book.start()
    for number in range(BATCH_ROWS):
        rig.serve(key=Key(KeyId(f"{number:08x}"), f"k{number}", bytes(32)))
    await asyncio.sleep(0.1)
    assert rig.store.writes == [BATCH_ROWS]
    await rig.book.aclose()


@in_virtual_time
async def test_nothing_used_writes_nothing() -> None:
    rig = Rig()
    rig.book.start()
    await asyncio.sleep(3600)
    await rig.book.aclose()
    assert rig.store.writes == []


def test_a_store_that_is_full_loses_nothing_that_fits_and_bounds_the_rest(
    rig: Rig,
) -> None:
    rig.store.is_full = True
    with capture_logs() as logs:
        for number in range(UNWRITTEN_ROWS + 100):
            rig.serve(key=Key(KeyId(f"{number:08x}"), f"k{number}", bytes(32)))
        rig.book.flush()
    assert [line["event"] for line in logs] == ["usage.unwritten"]
    assert len(rig.rows()) == UNWRITTEN_ROWS

    rig.store.is_full = False
    rig.book.flush()
    assert rig.store.writes == [UNWRITTEN_ROWS]


@in_virtual_time
async def test_days_of_long_ago_are_forgotten_once_an_hour() -> None:
    rig = Rig()
    rig.serve()
    rig.book.start()
    await asyncio.sleep(STANDARD.usage_flush_s * 2)
    rig.clock.date += DAYS_KEPT * 86_400
    rig.serve()
    await asyncio.sleep(STANDARD.usage_flush_s * 2)
    assert len(rig.rows(days=DAYS_KEPT * 2)) == 2
    rig.clock.moment += 3601
    rig.serve()
    await asyncio.sleep(STANDARD.usage_flush_s * 2)
    assert len(rig.rows(days=DAYS_KEPT * 2)) == 1
    await rig.book.aclose()


@in_virtual_time
async def test_a_store_that_is_full_is_tried_again_until_it_is_not() -> None:
    rig = Rig()
    rig.store.is_full = True
    rig.book.start()
    rig.serve()
    with capture_logs() as logs:
        await asyncio.sleep(STANDARD.usage_flush_s * 3.5)
    assert [line["event"] for line in logs] == ["usage.unwritten"] * 3
    rig.store.is_full = False
    await asyncio.sleep(STANDARD.usage_flush_s * 2)
    assert rig.store.writes == [1]
    await rig.book.aclose()


def test_a_process_that_is_killed_loses_the_last_batch_alone(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        book = UsageBook(store, FixedClock(), lambda _row: None)
        for batch in (1, 2):
            book.add(LAPTOP, f"m{batch}", Tokens(1, 1), 1.0, is_served=True)
            if batch == 1:
                book.flush()
        with closing(sqlite3.connect(tmp_path / STATE_FILE)) as found:
            on_disk = found.execute("SELECT model FROM usage").fetchall()

    assert on_disk == [("m1:latest",)]
