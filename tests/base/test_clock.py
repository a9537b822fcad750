"""The system's clock: close to the wall's, and never backwards."""

import time
from pathlib import Path

import pytest

from ollama_proxy.base.clock import SystemClock, date_of, open_clock, this_machine
from ollama_proxy.base.moments import Mark
from ollama_proxy.core.lifecycle.record import Record
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.virtual_time import SetClock


def test_it_tells_the_time_since_the_epoch() -> None:
    assert SystemClock().now() == pytest.approx(time.time(), abs=1.0)  # noqa: TID251


def test_it_is_proof_against_a_wall_clock_that_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SystemClock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert 0 <= clock.now() - before < 5.0


def test_the_date_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    monkeypatch.setattr(time, "time", lambda: 4.0)

    assert clock.wall() == 4.0


def test_a_moment_has_another_date_once_the_date_was_set() -> None:
    clock = SetClock(1000.0)
    before = date_of(clock, 400.0)
    clock.date_ahead_s = 5e8

    assert (before, date_of(clock, 400.0)) == (400.0, 5e8 + 400.0)


def test_a_clock_goes_on_where_that_of_the_process_before_was(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    first = open_clock(store)
    first_now = first.now()
    store.close()
    again = SqliteStore(tmp_path)
    second = open_clock(again)
    again.close()

    assert 0.0 <= second.now() - first_now < 5.0


def test_the_boot_of_the_machine_has_a_name_where_the_system_gives_one() -> None:
    first, second = this_machine(), this_machine()

    assert first.boot == second.boot
    assert 0.0 < first.uptime_s() <= second.uptime_s()


def test_each_record_is_written_with_a_mark(tmp_path: Path) -> None:
    class Counting:
        now = 2e9

        def mark(self) -> Mark:
            return Mark(self.now, 2e9, 5.0, "boot a")

    store, clock = SqliteStore(tmp_path), Counting()
    store.mark_with(clock)
    clock.now += 17.0
    store.put("default-0", Record(), None)
    mark = store.mark()
    store.close()

    assert mark is not None
    assert mark.now == 2e9 + 17.0


@pytest.mark.parametrize("damage", ["", "{", '{"now":"x"}', '{"now":NaN}'])
def test_a_mark_that_can_not_be_read_is_none(tmp_path: Path, damage: str) -> None:
    store = SqliteStore(tmp_path)
    open_clock(store)
    with store._db.writing() as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'mark'", (damage,))
    clock = open_clock(store)
    store.close()

    assert clock.now() == pytest.approx(clock.wall(), abs=1.0)
