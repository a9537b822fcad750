"""The state on disk: written before it counts, read back as it was."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_proxy.base.errors import StartupError
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Progress,
    Record,
    Stage,
    State,
)
from ollama_proxy.store import journal_lines
from ollama_proxy.store.sqlite import Store
from ollama_proxy.store.state_file import MIGRATIONS

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
    store = Store(folder)
    store.put("slot", record, None)
    store.close()
    store = Store(folder)

    assert store.get("slot") == record
    store.close()


def test_the_owner_id_is_drawn_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    owner_id = store.owner_id
    store.close()
    again = Store(tmp_path)

    assert again.owner_id == owner_id
    assert len(owner_id) == 16
    again.close()


def test_the_launches_on_record_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("a", Record(State.STARTING, launch_id=LaunchId("one")), None)
    store.put("b", Record(State.COLD), None)

    assert store.launch_ids() == {"one"}
    store.close()


def test_the_journal_is_newest_first_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_lines, "_ROWS", 3)
    store = Store(tmp_path)
    for number in range(5):
        line = Transition(float(number), "s", None, "cold", "starting", "Wake", None)
        store.put("s", Record(), line)

    assert [line.at for line in store.journal()] == [4.0, 3.0, 2.0]
    store.close()


def test_the_last_launches_are_remembered_by_offer(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(25):
        store.add_launch("a", float(number))
    store.add_launch("b", 99.0)

    assert sorted(store.launch_durations_s("a")) == [float(n) for n in range(5, 25)]
    store.close()


def test_a_second_proxy_on_the_folder_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StartupError, match="is in use by process"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_a_file_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    path = tmp_path / "state.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StartupError, match="has schema 99"):
        Store(tmp_path)
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
        Store(folder).close()
        db = sqlite3.connect(folder / "state.sqlite3")

        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        db.close()


def test_the_notes_of_two_backends_are_kept_apart(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        one, two = store.notes_of("exoscale"), store.notes_of("ovh")
        one.put_note(LaunchId("l1"), b"one")
        two.put_note(LaunchId("l1"), b"two")
        two.drop_note(LaunchId("l1"))

        assert one.notes() == {LaunchId("l1"): b"one"}
        assert two.notes() == {}


def test_an_instance_of_another_backend_is_not_forgotten(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.claim("exoscale", costs=True)
        store.put("slot", Record(launch_id=LaunchId("l1")), None)
        with pytest.raises(StartupError, match="an instance of the backend 'exoscale'"):
            store.claim("ovh", costs=True)
        store.put("slot", Record(), None)
        store.claim("ovh", costs=True)


def test_what_costs_nothing_binds_no_record(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.claim("static", costs=False)
        store.put("slot", Record(launch_id=LaunchId("l1")), None)
        store.claim("exoscale", costs=True)
