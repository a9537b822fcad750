"""What is written is on disk, and a write that fails changes nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.base.errors import StartupError, StoreError
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.store.sqlite import state_file
from ollama_proxy.store.sqlite.store import SqliteStore
from ollama_proxy.store.state_folder import read_owner
from tests.slots import SLOT

FULL, EXTRA = 2, 3
LAUNCH = LaunchId("l0123456789abcdef")
READY = Record(State.READY, since=1.0, launch_id=LAUNCH, accepted=True)
LINE = Transition(1.0, SLOT, LAUNCH, "starting", "ready", "Ready", None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path)) as store:
        yield store


def pragma(store: SqliteStore, name: str) -> object:
    return store._db.execute(f"PRAGMA {name}").fetchone()[0]


def test_each_commit_is_flushed_to_the_disk(store: SqliteStore) -> None:
    """In WAL mode NORMAL flushes at checkpoints only: a launch could be lost."""
    assert pragma(store, "synchronous") in {FULL, EXTRA}
    assert pragma(store, "journal_mode") == "wal"


def test_it_is_flushed_too_where_there_is_no_room_for_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(tmp_path).close()
    connect, tried = sqlite3.connect, []

    class WithoutRoom(sqlite3.Connection):
        def execute(self, sql: str, *rest: object) -> sqlite3.Cursor:
            if "journal_mode" in sql:
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *rest)  # type: ignore[arg-type]

    def first_without_room(path: Path) -> sqlite3.Connection:
        tried.append(path)
        return connect(path, factory=WithoutRoom) if len(tried) == 1 else connect(path)

    monkeypatch.setattr(sqlite3, "connect", first_without_room)
    with closing(state_file._connect(tmp_path / "state.sqlite3")) as db:
        assert db.execute("PRAGMA locking_mode").fetchone() == ("exclusive",)
        assert db.execute("PRAGMA synchronous").fetchone()[0] in {FULL, EXTRA}


def test_another_connection_sees_a_record_as_soon_as_it_is_put(
    store: SqliteStore, tmp_path: Path
) -> None:
    store.put(SLOT, READY, LINE)
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as db:
        assert db.execute("SELECT launch_id FROM instance").fetchall() == [(LAUNCH,)]
        assert db.execute("SELECT count(*) FROM journal").fetchone() == (1,)


def test_a_record_whose_line_can_not_be_written_is_not_written_either(
    store: SqliteStore,
) -> None:
    store._db.execute("DROP TABLE journal")
    with pytest.raises(StoreError):
        store.put(SLOT, READY, LINE)

    assert store.get(SLOT) is None


def test_a_problem_is_told_until_a_write_succeeds_again(store: SqliteStore) -> None:
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="can't be written"):
        store.add_launch("a", 1.0)
    assert "can't be written" in str(store.problem)
    store._db.execute("PRAGMA query_only = OFF")
    store.add_launch("a", 1.0)

    assert store.problem is None


def test_after_damage_no_launch_counts_as_anothers(store: SqliteStore) -> None:
    assert not store.remembers(LAUNCH)
    store._db.report("the state file was damaged")

    assert store.remembers(LAUNCH)


def test_an_owner_id_that_is_taken_over_stands_beside_the_file_too(
    store: SqliteStore, tmp_path: Path
) -> None:
    """First there: what the file beside says counts where the row is lost."""
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        store.take_over("0123456789abcdef")

    assert read_owner(tmp_path) == "0123456789abcdef"


def test_a_folder_is_let_go_if_its_file_can_not_be_opened(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    path = tmp_path / "state.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    refused = []  # what is raised keeps all that was open
    for _ in range(2):
        with pytest.raises(StartupError, match="has schema 99") as caught:
            SqliteStore(tmp_path)
        refused.append(caught)
