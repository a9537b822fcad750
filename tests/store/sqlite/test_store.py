"""The state on disk: written before it counts, read back as it was."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_proxy.base.errors import StartupError
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Progress,
    Record,
    Stage,
    State,
)
from ollama_proxy.store.sqlite.schema import MIGRATIONS
from ollama_proxy.store.sqlite.store import SqliteStore

_WITHOUT_LAUNCH = {State.COLD, State.COOLDOWN}

texts = st.text(max_size=20)
moments = st.floats(0, 4e9)
records = st.builds(
    Record,
    state=st.sampled_from(State),
    since=moments,
    launch_id=st.none() | texts.map(LaunchId),
    model=st.none() | texts,
    accepted=st.booleans(),
    adopted=st.booleans(),
    failed=st.booleans(),
    woken_at=moments,
    progress=st.builds(
        Progress, st.sampled_from(Stage), st.none() | st.floats(0, 1), texts
    ),
    progress_at=moments,
    leases=st.integers(0, 9),
    last_used=moments,
    failures=st.integers(0, 9),
    retry_at=moments,
    fault=st.none() | st.builds(Fault, texts, texts, st.booleans()),
    stop_error=st.none() | texts,
).filter(lambda one: one.launch_id is not None or one.state in _WITHOUT_LAUNCH)


@settings(max_examples=50, deadline=None)
@given(record=records)
def test_a_record_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, record: Record
) -> None:
    folder = tmp_path_factory.mktemp("state")
    store = SqliteStore(folder)
    store.put("slot", record, None)
    store.close()
    store = SqliteStore(folder)

    assert store.get("slot") == record
    store.close()


def test_a_second_proxy_on_the_folder_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(StartupError, match="is in use by process"):
        SqliteStore(tmp_path)
    store.close()
    SqliteStore(tmp_path).close()


def test_a_file_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    path = tmp_path / "state.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StartupError, match="has schema 99"):
        SqliteStore(tmp_path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
    db.close()


def test_every_version_of_the_schema_is_migrated_to_the_newest(tmp_path: Path) -> None:
    for version in range(len(MIGRATIONS)):
        folder = tmp_path / str(version)
        folder.mkdir()
        db = sqlite3.connect(folder / "state.sqlite3")
        for script in MIGRATIONS[:version]:
            db.executescript(script)
        db.execute(f"PRAGMA user_version = {version}")
        db.close()
        SqliteStore(folder).close()
        db = sqlite3.connect(folder / "state.sqlite3")

        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        db.close()
