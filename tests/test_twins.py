"""Two proxies on copies of one state folder: the second reports it and stops acting."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import LogCapture

from ollama_proxy.base import log
from ollama_proxy.base.errors import TwinError
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.fleet.backend import Belonging
from ollama_proxy.fleet.neighbours import Neighbours
from ollama_proxy.fleet.owners import twins
from ollama_proxy.fleet.sweeper import sweep
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.backends.exoscale.rig import exoscale_rig
from tests.backends.fly.rig import fly_rig
from tests.backends.ovh.rig import ovh_rig
from tests.slots import SLOT

LAUNCH = LaunchId("l1111111111111111")
OTHER = LaunchId("l2222222222222222")
OWNER = "0123456789abcdef"
NOW = 1_800_000_000.0
RIGS: dict[str, tuple[Any, dict[str, str]]] = {
    "exoscale": (exoscale_rig, {}),
    "ovh": (ovh_rig, {"idle_action": "delete"}),
    "fly": (fly_rig, {"idle_action": "destroy"}),
}


def write_down(store: SqliteStore, launch_id: LaunchId) -> None:
    """Have a launch on record, as a controller does before it calls a cloud."""
    record = Record(state=State.STARTING, launch_id=launch_id)
    line = Transition(NOW, SLOT, launch_id, "cold", "starting", "Wake", None)
    store.put(SLOT, record, line)


class Deployment:
    """A state folder, and the backend of a proxy on it."""

    def __init__(self, rig: Any, folder: Path, options: dict[str, str]) -> None:
        self.rig = rig
        self.store = SqliteStore(folder)
        rig.remembers = self.store.remembers
        self.backend = rig.open(self.store.owner_id, **options)

    async def start(self, launch_id: LaunchId) -> None:
        write_down(self.store, launch_id)
        await self.backend.start(launch_id)

    async def sweep(self) -> list[LaunchId]:
        return await sweep(self.backend, self.store, now=self.rig.clock.wall())

    async def aclose(self) -> None:
        await self.backend.aclose()
        self.store.close()


@asynccontextmanager
async def copies(
    name: str, tmp_path: Path
) -> AsyncIterator[tuple[Any, Deployment, Deployment]]:
    """Have two proxies, the second on a copy of the first one's folder."""
    opened, options = RIGS[name]
    SqliteStore(tmp_path / "first").close()
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    async with opened(tmp_path) as rig:
        first = Deployment(rig, tmp_path / "first", options)
        rig.notes.clear()
        second = Deployment(rig, tmp_path / "second", options)
        try:
            yield rig, first, second
        finally:
            await first.aclose()
            await second.aclose()


@pytest.mark.parametrize("name", RIGS)
async def test_the_second_of_two_copies_neither_makes_nor_ends_anything(
    tmp_path: Path, name: str, errors_logged: LogCapture
) -> None:
    async with copies(name, tmp_path) as (rig, first, second):
        await first.start(LAUNCH)
        swept = await second.sweep()
        for _ in range(2):
            with pytest.raises(TwinError, match="copy of this state folder"):
                await second.start(OTHER)
            await first.backend.start(LAUNCH)
        paid = len(rig.cloud.paid)
        await _until_stopped(rig, first)

    assert swept == []
    assert paid == 1
    assert rig.cloud.paid == []
    told = [entry["event"] for entry in errors_logged.entries]
    assert log.STATE_COPIED in told


@pytest.mark.parametrize("name", RIGS)
async def test_the_second_acts_once_the_first_has_stopped(
    tmp_path: Path, name: str
) -> None:
    async with copies(name, tmp_path) as (rig, first, second):
        await first.start(LAUNCH)
        with pytest.raises(TwinError):
            await second.start(OTHER)
        await _until_stopped(rig, first)
        await second.start(OTHER)
        paid = len(rig.cloud.paid)
        with pytest.raises(TwinError):
            await first.start(LaunchId("l3333333333333333"))
        await second.backend.stop(OTHER)
        await _until_gone(rig)

    assert paid == 1


@pytest.mark.parametrize("name", RIGS)
async def test_what_nobody_renews_is_swept_although_nobody_remembers_it(
    tmp_path: Path, name: str
) -> None:
    async with copies(name, tmp_path) as (rig, first, second):
        await first.start(LAUNCH)
        rig.clock.ahead_s += 3700.0
        swept = await second.sweep()
        await _until_gone(rig)

    assert swept == [LAUNCH]


@pytest.mark.parametrize("name", RIGS)
async def test_a_folder_that_was_moved_goes_on_with_what_it_began(
    tmp_path: Path, name: str
) -> None:
    opened, options = RIGS[name]
    async with opened(tmp_path) as rig:
        first = Deployment(rig, tmp_path / "here", options)
        await first.start(LAUNCH)
        first.store.put(SLOT, Record(), None)  # it was killed, and forgot its launch
        await first.aclose()
        shutil.move(tmp_path / "here", tmp_path / "there")
        second = Deployment(rig, tmp_path / "there", options)
        swept = await second.sweep()
        await second.aclose()
        await _until_gone(rig)

    assert swept == [LAUNCH]


async def _until_stopped(rig: Any, deployment: Deployment) -> None:
    await deployment.backend.stop(LAUNCH)
    await _until_gone(rig)


async def _until_gone(rig: Any) -> None:
    async with asyncio.timeout(5.0):
        while rig.cloud.paid:
            await asyncio.sleep(0.02)


def belonging(**changes: Any) -> Belonging:
    known: dict[str, Any] = {
        "id": "1",
        "name": "vm",
        "owner_id": OWNER,
        "state": "running",
        "launch_id": LAUNCH,
        "runs": True,
        "lease_end": NOW + 60.0,
    }
    return Belonging(**(known | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"owner_id": "f" * 16},
        {"launch_id": OTHER},
        {"launch_id": LaunchId("deployed1800000000")},
        {"launch_id": None},
        {"runs": False},
        {"lease_end": NOW - 1.0},
        {"lease_end": None},
    ],
)
def test_only_a_living_launch_of_ours_that_was_never_begun_here_is_a_twins(
    changes: dict[str, Any],
) -> None:
    assert twins([belonging()], OWNER, {OTHER}.__contains__, NOW)
    assert not twins([belonging(**changes)], OWNER, {OTHER}.__contains__, NOW)


def test_a_store_remembers_every_launch_that_it_ever_began(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        write_down(store, LAUNCH)
        store.put(SLOT, Record(), None)

        assert store.remembers(LAUNCH)
        assert not store.remembers(OTHER)


@pytest.mark.parametrize("name", RIGS)
async def test_neighbours_are_told_once_with_price_and_command(
    tmp_path: Path, name: str, errors_logged: LogCapture
) -> None:
    opened, options = RIGS[name]
    async with opened(tmp_path) as rig:
        theirs = rig.open("f" * 16, **options)
        await theirs.start(LAUNCH)
        ours = rig.open(OWNER, price_per_hour=1.25)
        seen = Neighbours(
            [ours], owner_id=OWNER, remembers=lambda _name: True, clock=rig.clock
        )
        looking = asyncio.ensure_future(seen.run())
        async with asyncio.timeout(5.0):
            while not seen.others():
                await asyncio.sleep(0.01)
        looking.cancel()
        told = seen.others()[0]
        await theirs.stop(LAUNCH)
        await _until_gone(rig)
        await theirs.aclose()
        await ours.aclose()

    assert told["price_per_hour"] == 1.25
    assert told["has_proxy"]
    assert told["command"] == f"ollama-proxy sweep --owner {'f' * 16} --launch {LAUNCH}"
    assert seen.problem is None
    assert log.OWNERS_OTHER in [entry["event"] for entry in errors_logged.entries]
