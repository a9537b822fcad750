"""A damaged state: reported, copied, read as far as possible, no launch forgotten."""

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from structlog.testing import LogCapture

from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningJournal,
    ProvisioningRecord,
)
from ollama_proxy.base import log
from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.core.ollama.catalog import Catalog, Snapshot
from ollama_proxy.core.restore_plan import Origin, StickyModel
from ollama_proxy.store.claim import Claim
from ollama_proxy.store.sqlite.state_file import keep_copy
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.slots import SLOT

LAUNCH = LaunchId("l0123456789abcdef")
READY = Record(State.READY, since=1.0, launch_id=LAUNCH, accepted=True)


def line(after: str, launch_id: str = LAUNCH) -> Transition:
    return Transition(1.0, SLOT, launch_id, "cold", after, "Wake", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a state folder with an instance, a note and what is known of models."""
    with closing(SqliteStore(tmp_path)) as store:
        store.claim([Claim("exoscale", "exoscale")], [SLOT])
        store.put(SLOT, READY, line("ready"))
        store.notes_of("exoscale").put_note(LAUNCH, b'{"a": 1}')
        store.put_sticky(StickyModel("a:latest", Origin.PULLED, "a", "a"))
        store.put_sticky(StickyModel("b:latest", Origin.PULLED, "b", "b"))
        store.add_launch("exoscale", 60.0)
        store.place("here").put_contents(Snapshot(b'{"models":[]}', "0.1.0"))
    return tmp_path


@contextlib.contextmanager
def altered(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "state.sqlite3")) as db, db:
        yield db


def copies(folder: Path) -> list[Path]:
    return sorted(folder.glob("state.sqlite3.damaged-*Z"))


def reasons(capture: LogCapture) -> list[str]:
    return [e["reason"] for e in capture.entries if e["event"] == log.STATE_DAMAGED]


@pytest.mark.parametrize(
    "record",
    [
        b"no JSON",
        b"",
        b'{"state":"parked","launch_id":"l0123456789abcdef"}',
        b'{"state":7}',
        b"[]",
        b'{"state":"ready"}',
        b'\xff{"state":"ready","launch_id":"l0123456789abcdef"}',
    ],
)
def test_what_a_record_names_that_can_not_be_read_is_stopped(
    folder: Path, record: bytes, errors_logged: LogCapture
) -> None:
    with altered(folder) as db:
        db.execute("UPDATE instance SET record = ?", (record,))
    with closing(SqliteStore(folder)) as store:
        found = store.get(SLOT)

        assert found is not None
        assert (found.state, found.launch_id) == (State.STOPPING, LAUNCH)
        assert store.launch_ids() == {LAUNCH}
    assert (
        "the record of 'default/0/exoscale' can't be read" in reasons(errors_logged)[0]
    )
    assert LAUNCH in reasons(errors_logged)[0]
    assert str(copies(folder)[0]) in reasons(errors_logged)[0]


def test_a_damaged_record_is_stopped_on_a_full_disk_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("the state can't be written: database or disk is full")

    with altered(folder) as db:
        db.execute("UPDATE instance SET record = 'x'")
    monkeypatch.setattr(SqliteStore, "put", full)
    with closing(SqliteStore(folder)) as store:
        found = store.get(SLOT)

        assert found is not None
        assert (found.state, found.launch_id) == (State.STOPPING, LAUNCH)


def test_a_file_that_is_damaged_under_us_is_told_of_in_a_sentence(
    folder: Path,
) -> None:
    with closing(SqliteStore(folder)) as store:
        store._db.execute("DROP TABLE journal")
        store._db.execute("DROP TABLE instance")
        for read in (store.journal, store.launch_ids):
            with pytest.raises(StoreError, match=r"can't be read.*start the proxy"):
                read()


def test_a_launch_that_stands_in_the_bytes_of_a_record_alone_is_stopped(
    folder: Path,
) -> None:
    raw = msgspec.json.encode(READY)[:-5]
    with altered(folder) as db:
        db.execute("UPDATE instance SET launch_id = NULL, record = ?", (raw,))
    with closing(SqliteStore(folder)) as store:
        assert store.launch_ids() == {LAUNCH}


def test_a_record_that_names_another_launch_than_its_row_is_stopped(
    folder: Path,
) -> None:
    with altered(folder) as db:
        db.execute("UPDATE instance SET launch_id = 'lfedcba9876543210'")
    with closing(SqliteStore(folder)) as store:
        found = store.get(SLOT)

        assert found is not None
        assert (found.state, found.launch_id) == (State.STOPPING, "lfedcba9876543210")
        assert f"it names the launch {LAUNCH}" in store.damage[0]


def test_a_damaged_record_of_nothing_is_none(folder: Path) -> None:
    with altered(folder) as db:
        db.execute("UPDATE instance SET launch_id = NULL, record = X'00'")
    with closing(SqliteStore(folder)) as store:
        found = store.get(SLOT)

        assert found is not None
        assert found.state is State.COLD


@pytest.mark.parametrize(
    "table",
    [
        "meta",
        "instance",
        "journal",
        "launch",
        "launch_stages",
        "sticky_model",
        "backend_note",
        "place",
    ],
)
def test_a_missing_table_costs_what_was_in_it_and_no_launch(
    folder: Path, table: str, errors_logged: LogCapture
) -> None:
    with closing(SqliteStore(folder)) as store:
        owner_id = store.owner_id
    with altered(folder) as db:
        db.execute(f"DROP TABLE {table}")
    with closing(SqliteStore(folder)) as store:
        assert store.owner_id == owner_id
        assert store.launch_ids() == {LAUNCH}
        left = {model.name for model in store.sticky_models()}
        assert left == (set() if table == "sticky_model" else {"a:latest", "b:latest"})
        assert len(store.notes_of("exoscale").notes()) == (table != "backend_note")
    assert f"the table '{table}' is missing" in reasons(errors_logged)[0]
    assert len(copies(folder)) == 1


def test_the_journal_tells_of_the_launch_whose_record_is_gone(folder: Path) -> None:
    with altered(folder) as db:
        db.execute("DROP TABLE instance")
    with closing(SqliteStore(folder)) as store:
        found = store.get(SLOT)

        assert found is not None
        assert (found.state, found.launch_id) == (State.STOPPING, LAUNCH)


def test_a_launch_that_ended_is_not_recalled(folder: Path) -> None:
    with closing(SqliteStore(folder)) as store:
        store.put(SLOT, Record(), line("cold"))
    with altered(folder) as db:
        db.execute("DROP TABLE instance")
    with closing(SqliteStore(folder)) as store:
        assert store.launch_ids() == set()


def test_a_record_that_is_left_counts_for_more_than_the_journal(folder: Path) -> None:
    with closing(SqliteStore(folder)) as store:
        store.put(SLOT, Record(), None)
    with altered(folder) as db:
        db.execute("DROP TABLE sticky_model")
    with closing(SqliteStore(folder)) as store:
        assert store.damage
        assert store.get(SLOT) == Record()


def test_a_column_of_another_version_is_damage(folder: Path) -> None:
    with altered(folder) as db:
        db.execute("ALTER TABLE journal DROP COLUMN report")
    with closing(SqliteStore(folder)) as store:
        assert [one.launch_id for one in store.journal()] == [LAUNCH]
        assert "has no 'report'" in store.damage[0]


def test_a_file_that_is_no_database_is_set_aside(
    tmp_path: Path, errors_logged: LogCapture
) -> None:
    path = tmp_path / "state.sqlite3"
    path.write_text("this is not a database, not at all" * 50)
    with closing(SqliteStore(tmp_path)) as store:
        assert store.get(SLOT) is None
    with closing(SqliteStore(tmp_path)) as store:
        assert store.damage == []

    assert copies(tmp_path)[0].read_text().startswith("this is not")
    assert "file is not a database" in reasons(errors_logged)[0]
    assert str(copies(tmp_path)[0]) in reasons(errors_logged)[0]


@pytest.mark.parametrize("keeps_owner_file", [True, False])
def test_what_stands_in_the_bytes_of_a_file_without_its_head_is_found(
    folder: Path, keeps_owner_file: bool
) -> None:
    with closing(SqliteStore(folder)) as store:
        owner_id = store.owner_id
    if not keeps_owner_file:
        (folder / "owner").unlink()
    path = folder / "state.sqlite3"
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])
    with closing(SqliteStore(folder)) as store:
        found = store.get(SLOT)

        assert store.owner_id == owner_id
        assert found is not None
        assert (found.state, found.launch_id) == (State.STOPPING, LAUNCH)


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(folder: Path) -> None:
    with closing(SqliteStore(folder)) as store:
        owner_id = store.owner_id
    path = folder / "state.sqlite3"
    whole = path.read_bytes()
    for kept in range(1, len(whole), 4096 - 512):
        path.write_bytes(whole[:kept])
        (folder / "state.sqlite3-wal").unlink(missing_ok=True)
        with closing(SqliteStore(folder)) as store:
            assert store.owner_id == owner_id
    assert len(copies(folder)) == 5


@pytest.mark.parametrize("seed", range(25))
def test_whatever_bytes_are_damaged_the_launch_is_stopped_or_still_ours(
    folder: Path, seed: int
) -> None:
    """The owner id is kept in any case, by which the sweep finds what is there."""
    with closing(SqliteStore(folder)) as store:
        owner_id = store.owner_id
    path, rng = folder / "state.sqlite3", random.Random(seed)
    damaged = bytearray(path.read_bytes())
    length = rng.choice([1, 30, 4096])
    start = rng.randrange(100, len(damaged) - length)
    damaged[start : start + length] = rng.randbytes(length)
    path.write_bytes(damaged)
    with closing(SqliteStore(folder)) as store:
        found = store.get(SLOT)
        store.sticky_models()
        store.place("here").contents()
        store.journal()

        assert store.owner_id == owner_id
        assert found is None or found.launch_id == LAUNCH or store.damage


def test_damaged_rows_of_models_go_and_the_others_stay(
    folder: Path, errors_logged: LogCapture
) -> None:
    with altered(folder) as db:
        db.execute("UPDATE sticky_model SET model = 'nothing' WHERE name = 'a:latest'")
        db.execute("UPDATE launch SET duration_s = 'long'")
    with closing(SqliteStore(folder)) as store:
        assert [model.name for model in store.sticky_models()] == ["b:latest"]
        assert store.launch_durations_s("exoscale") == []
    with closing(SqliteStore(folder)) as store:
        store.sticky_models()
        assert store.damage == []
    assert len(copies(folder)) == 1
    assert "the model 'a:latest' can't be read" in reasons(errors_logged)[0]


@pytest.mark.parametrize(
    "contents",
    [
        b"\xc1",
        b"\x80",
        msgspec.msgpack.encode(Snapshot(b"no JSON", "0.1.0")),
        msgspec.msgpack.encode(Snapshot(b'{"models":{}}', "0.1.0")),
        msgspec.msgpack.encode(Snapshot(b'{"models":[]}', "0.1.0", {"a": b"{"})),
        7,
    ],
)
def test_a_broken_catalogue_is_none(folder: Path, contents: object) -> None:
    with altered(folder) as db:
        db.execute("UPDATE place SET contents = ?, lessons = X'c1'", (contents,))
    with closing(SqliteStore(folder)) as store:
        place = store.place("here")

        assert place.contents() is None
        assert place.lessons().routes == []
        assert len(store.damage) == 2
        Catalog([], version="0.1.0", since=lambda: 0.0, contents=place.contents())


def test_copies_are_few(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    path.write_bytes(b"x")
    for moment in range(8):
        assert keep_copy(path, 1e9 + moment) is not None

    assert len(copies(tmp_path)) == 5
    assert copies(tmp_path)[-1].name == "state.sqlite3.damaged-20010909T014647000000Z"


class Notes:
    """Notes that an earlier process left."""

    def __init__(self, kept: dict[str, bytes]) -> None:
        self.kept = {LaunchId(name): note for name, note in kept.items()}

    def notes(self) -> dict[LaunchId, bytes]:
        return dict(self.kept)

    def put_note(self, launch_id: LaunchId, note: bytes) -> None:
        self.kept[launch_id] = note

    def drop_note(self, launch_id: LaunchId) -> None:
        self.kept.pop(launch_id, None)


@pytest.mark.parametrize("broken", [b"", b"[1", b"7", b"\xff", b"[]"])
def test_a_note_that_can_not_be_read_hides_no_other(
    broken: bytes, errors_logged: LogCapture
) -> None:
    whole = ProvisioningRecord("GRA", instance_id="i1")
    notes = Notes({"book": broken, "l1": broken, "l2": msgspec.json.encode(whole)})
    journal = ProvisioningJournal(notes, 1000.0)

    assert journal.get(LaunchId("l2")) == whole
    # It may have been sent a moment ago, so it is looked for as long as one of these.
    assert journal.get(LaunchId("l1")) == ProvisioningRecord("", attempted_at=1000.0)
    assert journal.book.locations == ("GRA",)
    told = reasons(errors_logged)
    assert any(reason.startswith("the note 'l1' can't be read") for reason in told)
    journal.drop(LaunchId("l1"))
    assert LaunchId("l1") not in notes.kept


@pytest.mark.parametrize("broken", [b"", b"[1", b'{"offer": 7}', b"\xff", b"7"])
def test_a_purchase_that_can_not_be_read_hides_no_other(broken: bytes) -> None:
    whole = ProvisioningRecord("at-vie-2", type_name="gpu3", instance_id="i1")
    journal = ProvisioningJournal(
        Notes({"zones": broken, "l1": broken, "l2": msgspec.json.encode(whole)}),
        1000.0,
    )

    assert journal.get(LaunchId("l2")) == whole
    # It may have been bought a moment ago, so it is looked for as long as one of these.
    assert journal.get(LaunchId("l1")) == ProvisioningRecord("", attempted_at=1000.0)
    assert journal.book.locations == ("at-vie-2",)


@pytest.mark.parametrize(
    ("said", "damaged"),
    [
        (b"CREATE TABLE journal", b"CREATE \x85ABLE journal"),
        (b"journaljournal", b"jou\xc3naljournal"),
    ],
)
def test_damage_in_the_schema_whose_error_is_no_text_is_mended(
    folder: Path, said: bytes, damaged: bytes
) -> None:
    """SQLite quotes the damaged bytes."""
    with closing(SqliteStore(folder)) as store:
        owner_id = store.owner_id
    path = folder / "state.sqlite3"
    raw = path.read_bytes()
    assert said in raw
    path.write_bytes(raw.replace(said, damaged))
    with closing(SqliteStore(folder)) as store:
        assert store.owner_id == owner_id
        assert store.damage
