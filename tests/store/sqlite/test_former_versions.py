"""State files that former versions wrote: opened as they are, no launch forgotten."""

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.moments import Mark
from ollama_proxy.core.lifecycle.record import LaunchId, Policy, State
from ollama_proxy.core.restore_plan import Origin, StickyModel
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.pool_slot import slots_of
from ollama_proxy.fleet.sweeper import sweep
from ollama_proxy.store.claim import Claim
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.fakes.cloud import FakeCloud
from tests.fakes.probe import FakeProbe
from tests.slots import SLOT, slot_of
from tests.virtual_time import LoopClock, in_virtual_time

DATA = Path(__file__).parents[1] / "data"
READY, KILLED = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")
SECOND = "default/1/exoscale"
OWNERS = {"1386cdb": "dbdd2451111c44dc", "8bbda92": "844794be9c8d7391"}
PLACE = "exoscale at-vie-2 Linux Ubuntu 24.04 LTS 64-bit"


@pytest.fixture(params=list(OWNERS))
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(version: str, tmp_path: Path) -> Iterator[SqliteStore]:
    shutil.copy(DATA / f"{version}.sqlite3", tmp_path / "state.sqlite3")
    with closing(SqliteStore(tmp_path)) as store:
        yield store


def test_its_records_are_read_and_nothing_is_taken_for_damaged(
    store: SqliteStore, version: str
) -> None:
    ready, killed = store.get(SLOT), store.get(SECOND)

    assert store.damage == []
    assert store.owner_id == OWNERS[version]
    assert ready is not None
    assert (ready.state, ready.launch_id) == (State.READY, READY)
    assert (ready.accepted, ready.woken_at) == (True, 1763000001.0)
    assert killed is not None
    assert (killed.state, killed.launch_id) == (State.STARTING, KILLED)
    assert not killed.accepted
    assert store.launch_ids() == {READY, KILLED}


def test_its_launches_are_remembered(store: SqliteStore) -> None:
    assert store.remembers(READY)
    assert store.remembers(KILLED)
    assert [(one.after, one.at) for one in store.journal()] == [
        ("starting", 1763000100.0),
        ("ready", 1763000090.0),
        ("starting", 1763000001.0),
    ]


def test_the_rest_of_it_is_read(store: SqliteStore, version: str) -> None:
    assert store.launch_durations_s("exoscale") == [89.0, 75.5]
    assert store.sticky_models() == [
        StickyModel("qwen3:latest", Origin.PULLED, "qwen3", "qwen3")
    ]
    assert store.notes_of("exoscale").notes() == {READY: b'{"zone":"at-vie-2"}'}
    contents = store.place(PLACE).contents()
    if version == "1386cdb":  # the place of its catalogue was not recorded
        assert contents is None
        assert store.mark() is None
    else:
        assert contents is not None
        assert contents.version == "0.12.6"
        assert store.place(PLACE).lessons().routes == ["GET /api/extra"]
        boot = "11111111-2222-3333-4444-555555555555"
        assert store.mark() == Mark(1763000120.0, 1763000120.0, 5000.0, boot)


def test_its_instance_belongs_to_its_backend(store: SqliteStore) -> None:
    assert store.claims() == {"exoscale": Claim("exoscale", "exoscale")}
    with pytest.raises(StartupError, match="for the offer 'exoscale' of the backend"):
        store.claim([Claim("fly", "fly")], [slot_of("fly")])


def open_pool(cloud: FakeCloud, store: SqliteStore, slots: Sequence[str]) -> Pool:
    """Return a pool of one offer with these slots, on the records of a store."""
    controllers = [
        Controller(
            slot,
            Offer("exoscale", cloud),
            store=store,
            launches=store,
            probe=FakeProbe(load_s=2.0),
            clock=LoopClock(),
            policy=Policy(),
            rng=random.Random(1),
        )
        for slot in slots
    ]
    return Pool(slots_of(controllers), store=store, clock=LoopClock(), max_waiting=9)


@in_virtual_time
async def test_its_instance_is_adopted_and_the_unanswered_launch_is_not_made_twice(
    store: SqliteStore,
) -> None:
    """The call of the second launch had arrived: it is repeated by the same id."""
    cloud = FakeCloud()
    for launch_id in (READY, KILLED):
        await cloud.start(launch_id)
    pool = open_pool(cloud, store, (SLOT, SECOND))
    pool.start()
    for _ in range(100):
        await cloud.owned()
    records = [controller.record for controller in pool.controllers]
    swept = await sweep(cloud, store)
    await pool.aclose()

    assert [(one.state, one.launch_id) for one in records] == [
        (State.READY, READY),
        (State.READY, KILLED),
    ]
    assert swept == []
    assert (cloud.paid, cloud.launches) == (2, 2)
