"""A sweep that is killed at any of its calls is finished by the same command."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.backend import ExoscaleBackend
from ollama_proxy.base import timing
from ollama_proxy.base.errors import StartupError
from ollama_proxy.cli import offline, opened_offers, owner_sweep
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from ollama_proxy.store.memory import MemoryNotes
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.backends.exoscale.rig import Rig, exoscale_rig
from tests.crashes import Death, Killed
from tests.fakes.exoscale.cloud import Timing
from tests.virtual_time import pass_time

LAUNCH = LaunchId("l0123456789abcdef")
LOST = "feedfacefeedface"
MOST_CALLS = 60
"""More calls than any of these commands makes."""
SHORT = timing.Timing(tidy_pause_s=0.01, discard_pause_s=0.01)
TIMING = Timing(leave_s=1.0, group_lag_s=3.0)


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch) -> Death:
    """Kill at calls of the cloud, and where the state folder is written."""
    plan = Death()
    plan.watch(monkeypatch, ExoscaleApi, "call_once", MemoryNotes)
    for name in ("add_line", "take_over"):
        monkeypatch.setattr(
            SqliteStore, name, _watched(plan, getattr(SqliteStore, name))
        )
    return plan


def _watched(plan: Death, write: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(write)
    def writing(*arguments: Any) -> None:
        plan.seen += 1
        plan._reach("before")
        write(*arguments)
        plan._reach("after")

    return writing


@contextlib.asynccontextmanager
async def passing_time(rig: Rig) -> AsyncIterator[None]:
    passing = asyncio.get_running_loop().create_task(
        pass_time(rig.clock, 1.0, every_s=0.005)
    )
    try:
        yield
    finally:
        passing.cancel()
        await asyncio.gather(passing, return_exceptions=True)


def settings_of(folder: Path) -> Settings:
    return Settings(state_dir=folder, backend="exoscale")


async def forgotten(rig: Rig) -> None:
    """Leave an instance that no record names, and whose lease is over."""
    rig.guests.is_over = True  # its guest gets no requests
    backend = rig.open(LOST)
    rig.clock.ahead_s -= 7200.0
    await backend.start(LAUNCH)
    rig.clock.ahead_s += 7200.0
    rig.notes.clear()
    await backend.aclose()


async def standby(rig: Rig) -> None:
    """Leave an instance that is stopped, and kept for the next launch."""
    backend: ExoscaleBackend = rig.open(LOST, idle_action="stop")
    await backend.start(LAUNCH)
    async with asyncio.timeout(60):
        while (await backend.inspect(LAUNCH)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.01)
        await backend.renew(LAUNCH, serves=True)
        while (await backend.inspect(LAUNCH)).phase is not Phase.GONE:
            await backend.stop(LAUNCH)
            await asyncio.sleep(0.01)
    await backend.aclose()


async def sweep(rig: Rig, folder: Path) -> None:
    await offline.sweep_alone(settings_of(folder), dry_run=False, timing=SHORT)


async def sweep_stopped(rig: Rig, folder: Path) -> None:
    await offline.sweep_alone(
        settings_of(folder), dry_run=False, stopped=True, timing=SHORT
    )


async def sweep_owner(rig: Rig, folder: Path) -> None:
    async with owner_sweep.owner_sweep(settings_of(folder), timing=SHORT) as (opened,):
        await opened.delete(LOST, (), _say_nothing, _say_nothing)


async def adopt_and_sweep(rig: Rig, folder: Path) -> None:
    """Adopt, unless that is done, and sweep."""
    with contextlib.suppress(StartupError):  # it has things of its own by now
        await owner_sweep.adopt(
            settings_of(folder), LOST, (), _say_nothing, _say_nothing
        )
    await sweep(rig, folder)


def _say_nothing(_line: str) -> None:
    """Agree to everything."""


Command = Callable[[Rig, Path], Awaitable[None]]
COMMANDS: dict[str, tuple[Callable[[Rig], Awaitable[None]], Command, bool, str]] = {
    "sweep": (forgotten, sweep, True, "destroy"),
    "sweep --stopped": (standby, sweep_stopped, True, "stop"),
    "sweep --owner ID --yes": (forgotten, sweep_owner, False, "destroy"),
    "sweep --adopt-owner ID --yes, sweep": (
        forgotten,
        adopt_and_sweep,
        False,
        "destroy",
    ),
}
"""What is left behind, the command, whether it is the owner's own, the idle action."""


def left(rig: Rig) -> str:
    """Return all that is there of ours, paid for or not, and what was bought."""
    cloud = rig.cloud
    there = [cloud.state(one) for one in cloud.instances.values() if one.labels]
    ours = [state for state in there if state not in {"destroyed", "destroying"}]
    groups = [group["name"] for group in cloud.groups.values()]
    return f"{ours}, {groups}, {cloud.bought} bought, touched {cloud.touched}"


async def _killed_once(
    folder: Path, death: Death, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> tuple[str, bool]:
    """Kill a command at its call ``at``, and run it again; return what is left.

    Also returns whether it had no call of that number.
    """
    prepare, command, is_own, idle_action = COMMANDS[name]
    async with exoscale_rig(folder / "cloud", TIMING) as rig, passing_time(rig):

        def opened(
            _settings: object, store: SqliteStore, _clock: object
        ) -> dict[str, ExoscaleBackend]:
            owner_id = LOST if is_own else store.owner_id
            return {"exoscale": rig.open(owner_id, idle_action=idle_action)}

        monkeypatch.setattr(opened_offers, "open_backends", opened)
        moment = death.moment
        death.plan(moment, 0)
        stranger = rig.cloud.stranger()
        await prepare(rig)
        death.plan(moment, at)
        with contextlib.suppress(Killed):
            await command(rig, folder / "state")
        is_last = not death.came
        death.plan(moment, 0)
        async with asyncio.timeout(60):
            await command(rig, folder / "state")
            while any(rig.cloud.state(one) == "destroying" for one in _ours(rig)):
                await asyncio.sleep(0.01)
        assert rig.cloud.exists(stranger)
        return left(rig), is_last


def _ours(rig: Rig) -> list[Any]:
    return [one for one in rig.cloud.instances.values() if one.labels]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", COMMANDS)
async def test_a_killed_sweep_is_finished_by_the_same_command(
    tmp_path: Path,
    death: Death,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    moment: str,
) -> None:
    found: dict[str, list[int]] = {}
    for number in range(1, MOST_CALLS):
        death.plan(moment, 0)
        told, is_last = await _killed_once(
            tmp_path / str(number), death, monkeypatch, name, number
        )
        found.setdefault(told, []).append(number)
        if is_last:
            break

    expected = "[], [], 1 bought, touched []"
    assert list(found) == [expected], found
    assert len(found[expected]) > 6
