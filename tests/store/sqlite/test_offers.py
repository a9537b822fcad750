"""Records by pool, slot and offer, in files from before there were offers, too."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.base.errors import StartupError
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.core.slot_keys import SlotKey, parse_slot_key
from ollama_proxy.store.claim import Claim
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.fakes.cloud import FakeCloud
from tests.slots import SLOT, slot_of
from tests.store.sqlite.test_former_versions import open_pool
from tests.virtual_time import in_virtual_time

DATA = Path(__file__).parents[1] / "data" / "977c650.sqlite3"
LAUNCH = LaunchId("l477da30bec6458c1")
EXOSCALE = Claim("exoscale", "exoscale")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a state folder of the last version without offers, its instance ready."""
    shutil.copy(DATA, tmp_path / "state.sqlite3")
    return tmp_path


def test_the_one_slot_of_before_is_that_of_its_backends_offer(folder: Path) -> None:
    with closing(SqliteStore(folder)) as store:
        store.claim([EXOSCALE], [SLOT])

        assert store.launches() == {SLOT: LAUNCH}
        assert {line.slot for line in store.journal()} == {SLOT}
        assert LAUNCH in store.notes_of("exoscale").notes()
        assert len(store.launch_durations_s("exoscale")) == 1
        assert store.damage == []


@in_virtual_time
async def test_its_running_instance_goes_on(folder: Path) -> None:
    with closing(SqliteStore(folder)) as store:
        store.claim([EXOSCALE], [SLOT])
        cloud = FakeCloud()
        await cloud.start(LAUNCH)
        pool = open_pool(cloud, store, [SLOT])
        pool.start()
        for _ in range(20):
            await cloud.owned()
        (controller,) = pool.controllers
        record = controller.record
        await pool.aclose()

    assert (record.state, record.launch_id) == (State.READY, LAUNCH)
    assert (cloud.paid, cloud.launches) == (1, 1)


def test_its_instance_is_not_lost_to_other_offers(folder: Path) -> None:
    with (
        closing(SqliteStore(folder)) as store,
        pytest.raises(StartupError, match=f"ollama-proxy stop --launch {LAUNCH}"),
    ):
        store.claim([Claim("vienna", "exoscale")], ["default/0/vienna"])


def test_what_cost_nothing_gets_the_first_offer(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "state.sqlite3")) as db, db:
        db.execute("DELETE FROM meta WHERE key = 'backend'")
    with closing(SqliteStore(folder)) as store:
        store.claim([Claim("local", "local", costs=False)], [slot_of("local")])

        assert store.launches() == {slot_of("local"): LAUNCH}
        assert {line.slot for line in store.journal()} == {slot_of("local")}


def test_a_damaged_file_of_before_is_read_as_that_of_its_backend(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "state.sqlite3")) as db, db:
        db.execute("DROP TABLE sticky_model")
    with closing(SqliteStore(folder)) as store:
        assert store.damage
        assert store.launches() == {SLOT: LAUNCH}
        assert store.claims() == {"exoscale": EXOSCALE}


def test_a_launch_in_the_bytes_of_a_file_alone_keeps_its_offer(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        record = Record(State.READY, since=1.0, launch_id=LAUNCH, accepted=True)
        store.claim([Claim("big-box", "fly")], [slot_of("big-box")])
        store.put(slot_of("big-box"), record, None)
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("DELETE FROM sqlite_master WHERE name IN ('instance', 'offer')")
    with closing(SqliteStore(tmp_path)) as store:
        assert store.launches() == {slot_of("big-box"): LAUNCH}


@pytest.mark.parametrize("text", ["default-0", "a/b", "a/b/c", "a/-1/c", "a/1/b/c", ""])
def test_what_is_no_key_of_a_record_is_none(text: str) -> None:
    assert parse_slot_key(text) is None


def test_a_key_of_a_record_is_read_as_it_is_written() -> None:
    key = SlotKey("big", 12, "vienna")

    assert parse_slot_key(str(key)) == key
