"""A deployment whose date is set by years before, during and between runs.

No launch is lost or repeated, and nothing ends earlier or later after the restart than
it would without the change.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ollama_proxy.base.clock import SystemClock, open_clock
from ollama_proxy.base.errors import SpecError
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Lockout,
    Policy,
    Record,
    State,
)
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.pool_slot import slots_of
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.fakes.cloud import FakeCloud
from tests.fakes.host import Host
from tests.fakes.probe import FakeProbe
from tests.virtual_time import VirtualLoop

SHIFT_S = 6 * 3600.0
SLACK_S = 45.0
_LOOK_EVERY_S = 2.0
POLICY = Policy(
    idle_timeout_s=1800.0,
    start_timeout_s=900.0,
    drain_timeout_s=600.0,
    backoff_s=600.0,
    max_lifetime_s=SHIFT_S,
    launch_limit=5,
    final_s=SHIFT_S,
)


@dataclass(frozen=True, slots=True)
class History:
    """The year in run 1, in which it is set there, and the same of run 2."""

    first: int
    set_in_first: int | None = None
    reboots: bool = False
    second: int | None = None
    set_in_second: int | None = None


HISTORIES = {
    "set before": History(2026),
    "set during the first run": History(1970, set_in_first=2026),
    "set during the first run, reboot": History(1970, 2026, reboots=True, second=2026),
    "set between": History(1970, second=2026),
    "set between, over a reboot": History(1970, reboots=True, second=2026),
    "set during the second run": History(1970, second=1970, set_in_second=2026),
    "a boot without a date": History(2026, None, True, 1970, set_in_second=2026),
    "two boots without a date": History(1970, reboots=True, second=1970),
    "never right": History(1970),
    "a dead battery": History(2026, second=1970),
    "from 2099 during": History(2099, set_in_first=2026),
    "from 2099 between": History(2099, second=2026),
    "from 2099 over a reboot": History(2099, reboots=True, second=2026),
    "to 2099 over a reboot": History(2026, reboots=True, second=2099),
}


class Deployment:
    """A cloud, a proxy before it, its state on disk, and the machine of the proxy."""

    def __init__(self, folder: Path, year: int) -> None:
        self.cloud = FakeCloud()
        self.probe = FakeProbe()
        self.host = Host(year)
        self._folder = folder
        self.restarted_at = 0.0
        self.open()

    def open(self) -> None:
        self.store = SqliteStore(self._folder)
        self.clock: SystemClock = open_clock(self.store, self.host.machine())
        controller = Controller(
            "default-0",
            Offer("fake", self.cloud, ["m"]),
            store=self.store,
            launches=self.store,
            probe=self.probe,
            clock=self.clock,
            policy=POLICY,
            rng=random.Random(1),
        )
        self.pool = Pool(
            slots_of([controller]), store=self.store, clock=self.clock, max_waiting=9
        )
        self.restarted_at = asyncio.get_running_loop().time()
        self.pool.start()

    async def close(self) -> None:
        await self.pool.aclose()
        self.store.close()

    async def restart(self, history: History) -> None:
        """End the first run as the history has it, and begin the second."""
        if history.set_in_first is not None:
            self.host.set_date(history.set_in_first)
            await asyncio.sleep(SLACK_S)
        await self.close()
        if history.reboots:
            self.host.reboot(history.second or self.host.year)
        elif history.second is not None:
            self.host.set_date(history.second)
        await asyncio.sleep(5.0)
        self.open()
        if history.set_in_second is not None:
            await asyncio.sleep(20.0)
            self.host.set_date(history.set_in_second)

    @property
    def record(self) -> Record:
        return self.pool.controllers[0].record

    @property
    def since_restart_s(self) -> float:
        return asyncio.get_running_loop().time() - self.restarted_at

    async def until(
        self, is_so: Callable[[], bool], within_s: float = SHIFT_S
    ) -> float:
        """Wait; return how long after the restart it was so."""
        async with asyncio.timeout(within_s):
            while not is_so():
                await asyncio.sleep(_LOOK_EVERY_S)
        return self.since_restart_s

    async def until_state(self, state: State) -> float:
        return await self.until(lambda: self.record.state is state)

    async def ask(self) -> None:
        """Let one client have an answer."""
        lease = await self.pool.lease("m", wait_s=600.0)
        assert lease is not None
        lease.mark_used()
        lease.release()


def lived(history: str, folder: Path, life: "Life") -> None:
    """Have a deployment go through a history, in virtual time."""

    async def live() -> None:
        told = HISTORIES[history]
        deployment = Deployment(folder, told.first)
        await life(deployment, told)
        await deployment.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(live())


Life = Callable[[Deployment, History], Awaitable[None]]
each_history = pytest.mark.parametrize("history", HISTORIES)


@each_history
def test_what_was_ready_is_ready_and_goes_when_its_idle_time_is_over(
    history: str, tmp_path: Path
) -> None:
    async def life(deployment: Deployment, history: History) -> None:
        await deployment.ask()
        launch = deployment.record.launch_id
        await asyncio.sleep(60.0)
        await deployment.restart(history)
        ready_s = await deployment.until_state(State.READY)

        assert deployment.record.launch_id == launch
        assert ready_s < 60.0
        await asyncio.sleep(POLICY.idle_timeout_s - 60.0 - 3 * SLACK_S - ready_s)
        assert deployment.record.state is State.READY
        gone_s = await deployment.until_state(State.COLD)
        assert gone_s < POLICY.idle_timeout_s + SLACK_S
        assert (deployment.cloud.launches, deployment.cloud.paid) == (1, 0)

    lived(history, tmp_path, life)


@each_history
def test_what_is_used_on_and_on_goes_at_the_end_of_its_life(
    history: str, tmp_path: Path
) -> None:
    async def life(deployment: Deployment, history: History) -> None:
        await deployment.ask()
        await asyncio.sleep(60.0)
        await deployment.restart(history)
        while (
            deployment.cloud.launches == 1 and deployment.since_restart_s < 2 * SHIFT_S
        ):
            await deployment.ask()
            await asyncio.sleep(600.0)

        assert abs(SHIFT_S - deployment.since_restart_s) < 1260.0
        assert deployment.cloud.most_paid == 1

    lived(history, tmp_path, life)


@each_history
def test_a_launch_under_way_is_gone_on_with(history: str, tmp_path: Path) -> None:
    async def life(deployment: Deployment, history: History) -> None:
        deployment.cloud.faults.boot_s = 400.0
        await deployment.pool.wake()
        await asyncio.sleep(60.0)
        await deployment.restart(history)
        took_s = await deployment.until_state(State.READY)

        assert took_s < 600.0
        assert deployment.cloud.launches == 1
        assert max(deployment.store.launch_durations_s("fake")) < 800.0

    lived(history, tmp_path, life)


@each_history
def test_a_launch_that_comes_to_nothing_is_given_up_in_time(
    history: str, tmp_path: Path
) -> None:
    async def life(deployment: Deployment, history: History) -> None:
        deployment.cloud.faults.never_boots = True
        await deployment.pool.wake()
        await asyncio.sleep(60.0)
        await deployment.restart(history)
        took_s = await deployment.until_state(State.COOLDOWN)

        assert abs(took_s - POLICY.start_timeout_s) < SLACK_S
        assert deployment.cloud.launches == 1

    lived(history, tmp_path, life)


@each_history
def test_what_was_to_be_drained_or_stopped_is_stopped(
    history: str, tmp_path: Path
) -> None:
    async def life(deployment: Deployment, history: History) -> None:
        lease = await deployment.pool.lease("m", wait_s=600.0)
        assert lease is not None
        deployment.pool.stop()
        await deployment.restart(history)

        assert await deployment.until_state(State.COLD) < SLACK_S
        assert deployment.cloud.paid == 0

    lived(history, tmp_path, life)


@each_history
def test_a_cool_down_neither_ends_nor_lasts(history: str, tmp_path: Path) -> None:
    async def life(deployment: Deployment, history: History) -> None:
        deployment.probe.fault = Fault("lost", "it went away")
        await deployment.pool.wake()
        await deployment.until_state(State.COOLDOWN)
        await deployment.restart(history)
        await deployment.pool.wake()
        assert deployment.record.state is State.COOLDOWN
        over_s = await deployment.until_state(State.COLD)

        assert POLICY.backoff_s - 3 * SLACK_S < over_s < POLICY.backoff_s + SLACK_S
        assert deployment.cloud.launches == 1

    lived(history, tmp_path, life)


@each_history
def test_a_lockout_neither_ends_nor_lasts(history: str, tmp_path: Path) -> None:
    async def life(deployment: Deployment, history: History) -> None:
        deployment.cloud.start_error = SpecError("no such type")
        await deployment.pool.wake()
        await deployment.until_state(State.COOLDOWN)
        await deployment.restart(history)
        await deployment.pool.wake()
        assert deployment.record.lockout is not None
        over_s = await deployment.until(
            lambda: deployment.record.lockout is None, 2 * SHIFT_S
        )

        assert abs(over_s - SHIFT_S) < 3 * SLACK_S

    lived(history, tmp_path, life)


@each_history
def test_launches_for_nobody_are_counted_for_an_hour(
    history: str, tmp_path: Path
) -> None:
    async def life(deployment: Deployment, history: History) -> None:
        deployment.cloud.faults.never_boots = True
        await deployment.pool.wake()
        await asyncio.sleep(30.0)
        assert len(deployment.record.paid_launches) == 1
        await deployment.restart(history)

        assert len(deployment.record.paid_launches) == 1
        passed_s = deployment.clock.now() - deployment.record.paid_launches[0]
        assert 0 <= passed_s < 120.0

    lived(history, tmp_path, life)


@pytest.mark.parametrize("state", [State.READY, State.STARTING])
def test_moments_of_an_older_version_from_1970_count_from_the_restart(
    state: State, tmp_path: Path
) -> None:
    unset = 40.0

    async def live() -> None:
        old = SqliteStore(tmp_path)
        record = Record(
            state=state,
            since=unset,
            launch_id=LaunchId("l1"),
            accepted=True,
            woken_at=unset,
            launched_at=unset,
            progress_at=unset,
            last_used=unset,
            paid_launches=(unset,),
        )
        old.put("default-0", record, None)
        old.close()
        deployment = Deployment(tmp_path, 2026)
        deployment.cloud._create(LaunchId("l1"))
        ready_s = await deployment.until_state(State.READY)
        assert (deployment.record.launch_id, ready_s < 60.0) == ("l1", True)
        assert len(deployment.record.paid_launches) == 1
        gone_s = await deployment.until_state(State.COLD)

        assert abs(gone_s - POLICY.idle_timeout_s) < SLACK_S
        assert all(s < 60.0 for s in deployment.store.launch_durations_s("fake"))
        await deployment.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(live())


def test_a_lockout_of_an_older_version_from_1970_counts_from_the_restart(
    tmp_path: Path,
) -> None:
    async def live() -> None:
        deployment = Deployment(tmp_path, 1970)
        lockout = Lockout(
            "final", "why", 40.0, deployment.pool.controllers[0].policy.fingerprint
        )
        fault = Fault("spec", "no such type", final=True)
        record = Record(
            state=State.COOLDOWN,
            failures=3,
            retry_at=40.0,
            lockout=lockout,
            fault=fault,
        )
        deployment.store.put("default-0", record, None)
        await deployment.close()
        deployment.open()
        over_s = await deployment.until(
            lambda: deployment.record.lockout is None, 2 * SHIFT_S
        )

        assert abs(over_s - SHIFT_S) < SLACK_S
        await deployment.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(live())


def test_the_date_of_a_moment_is_known_once_the_date_is(tmp_path: Path) -> None:
    async def live() -> None:
        host = Host(1970)
        clock = SystemClock(None, host.machine())
        before = clock.now()
        host.set_date(2026)
        await asyncio.sleep(10.0)

        assert clock.now() - before == pytest.approx(10.0)
        assert datetime.fromtimestamp(clock.wall(), UTC).year == 2026

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(live())
