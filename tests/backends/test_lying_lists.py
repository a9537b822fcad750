"""Lists that lie, answers that are lost, restarts: never two instances, none forgotten.

A slice of the seeds runs by default; ``LYING_SEEDS=0:300`` runs them all. The meter
counts everything that costs money: machines, even stopped ones, volumes and groups.
"""

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.base.errors import BackendError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Observation, Phase
from tests.backends.exoscale.rig import exoscale_rig
from tests.backends.fly.rig import fly_rig
from tests.backends.ovh.rig import ovh_rig

RIGS: dict[str, Callable[[Path], Any]] = {
    "exoscale": exoscale_rig,
    "fly": fly_rig,
    "ovh": ovh_rig,
}
CREATE = {"exoscale": "create-instance", "fly": "Machines_create", "ovh": "create"}
LISTS = {
    "exoscale": ("list-instances",),
    "fly": ("Machines_list", "Volumes_list"),
    "ovh": ("list",),
}
ENDS = {"exoscale": "destroy", "fly": "destroy", "ovh": "delete"}
LIES = ("first page elsewhere", "one page lost", "empty once", "stale by 60 s")
LIE_S = 55.0
"""How long a list lies at most, at a stretch: `APART_S` is longer."""
SETTLE_S = 150.0
"""For so long a call whose answer was lost may still arrive."""
FIRST, _, LAST = os.environ.get("LYING_SEEDS", "0:8").partition(":")
SEEDS = range(int(FIRST), int(LAST))


def there(rig: Any, cloud: str) -> list[str]:
    """Name all of ours that costs something, whether it runs or not."""
    if cloud == "exoscale":
        ours = [i for i in rig.cloud.instances.values() if i.labels.get("owner")]
        gone = {"destroying", "destroyed"}
        return [f"instance {i.id}" for i in ours if rig.cloud.state(i) not in gone]
    if cloud == "fly":
        gone = {"destroying", "destroyed"}
        ours = [m for m in rig.cloud.machines() if m.metadata.get("ollama_proxy")]
        return [f"machine {m.id}" for m in ours if rig.cloud.state(m) not in gone]
    gone = {"DELETING", "DELETED"}
    ours = [a for a in rig.cloud.apps.values() if a.labels.get("ollama-proxy-managed")]
    return [f"app {a.id}" for a in ours if rig.cloud.state(a) not in gone]


def besides(rig: Any, cloud: str) -> list[str]:
    """Name what machines need: volumes and addresses of Fly, groups of Exoscale."""
    if cloud == "exoscale":
        return [f"group {group}" for group in rig.cloud.groups]
    if cloud == "fly":
        addresses = [
            f"address {ip}" for a in rig.cloud.apps.values() for ip in a.addresses
        ]
        return [f"volume {volume.id}" for volume in rig.cloud.volumes()] + addresses
    return []


@dataclass
class Liar:
    """Has the lists of a cloud lie for `LIE_S` at most, then tell the truth once."""

    rig: Any
    cloud: str
    lie: str
    until: float = 0.0
    lies: bool = False
    told_truly: int = 0

    def settle_in(self, rng: random.Random) -> None:
        """Arrange what holds for the whole of a story."""
        if self.lie == "stale by 60 s":
            name = "list_lag_s" if self.cloud == "exoscale" else "lag_s"
            setattr(self.rig.cloud.timing, name, 60.0)
        if self.cloud == "fly":
            self.rig.cloud.stranger(self.rig.app)
        elif self.cloud == "exoscale":
            self.rig.cloud.stranger()
        else:
            for _ in range(rng.randrange(1, 5)):
                self.rig.cloud.stranger()
            self.rig.server.lists.first = rng.randrange(2)
            if self.lie == "first page elsewhere":
                first = self.rig.server.lists.first
                self.rig.server.lists.given = first + rng.randrange(3)

    def begin(self, *, anew: bool = False) -> None:
        """Lie from now on, if a list was true since the last lie, or ``anew``."""
        is_due = self._true_lists(self.rig.server.calls) > self.told_truly
        if not self.is_lying and (anew or is_due):
            self.until = self.rig.clock.now() + LIE_S
        self.apply()

    def apply(self) -> None:
        """Have the server do what is meant now."""
        server = self.rig.server
        lies = self.lies = self.is_lying and self.lie != "stale by 60 s"
        if self.cloud == "ovh":
            server.lists.lie = "empty" if lies else ""
            return
        fault = "empty" if self.lie == "empty once" else "page-lost"
        for name in LISTS[self.cloud]:
            server.always[name] = fault if lies else ""

    def note(self) -> None:
        """Remember how many lists there were up to the last lie."""
        if self.lies:
            self.told_truly = self._true_lists(self.rig.server.calls)

    @property
    def is_lying(self) -> bool:
        return bool(self.rig.clock.now() < self.until)

    def _true_lists(self, calls: list[str]) -> int:
        return sum(name in LISTS[self.cloud] for name in calls)


@dataclass
class Story:
    """One deployment in a cloud whose lists lie, with its processes one by one."""

    rig: Any
    cloud: str
    seed: int
    rng: random.Random
    liar: Liar
    action: str
    backend: Any = None
    is_over: bool = False
    most: int = 0
    problem: BackendError | None = None

    async def restart(self) -> None:
        """End the process, and begin another."""
        if self.backend is not None:
            await self.backend.aclose()
        more = {"keep_volume": False} if self.cloud == "fly" and self.is_over else {}
        self.backend = self.rig.open(idle_action=self.action, **more)

    def count(self) -> None:
        """Note how many machines there are, running or not, and volumes or groups."""
        more = besides(self.rig, self.cloud)
        self.most = max(self.most, len(there(self.rig, self.cloud)), len(more))

    async def tried(self, *steps: Callable[[], Any]) -> Any:
        """Take steps; what fails is tried later again. Return the last result."""
        self.liar.apply()
        result = None
        try:
            for step in steps:
                result = await step()
        except BackendError as error:
            self.problem = error
            result = None
        self.liar.note()
        self.count()
        return result

    async def live(self, launch_id: LaunchId) -> None:
        """Let one launch begin, serve, and end."""
        self.liar.begin(anew=True)
        how = self.rng.choice(["lost-after", "lost-before", "lost-after", ""])
        self.rig.server.script[CREATE[self.cloud]] = [how] if how else []
        accepted = await self._accepted(launch_id, outage=bool(how))
        if accepted:
            await self._served(launch_id)
        await self._ended(launch_id)

    async def _accepted(self, launch_id: LaunchId, *, outage: bool) -> bool:
        """Start a launch; after a lost answer the lists lie when all seems settled."""
        begin = lambda: self.backend.start(launch_id)  # noqa: E731 - one step
        for _ in range(40):
            before = self.rig.server.calls.count(CREATE[self.cloud])
            await self.tried(begin)
            sent = self.rig.server.calls.count(CREATE[self.cloud]) > before
            if sent and outage and self.rng.random() < 0.7:
                outage = False
                self.rig.clock.ahead_s += SETTLE_S + self.rng.choice([1.0, 20.0])
                if self.rng.random() < 0.5:
                    await self.restart()
                self.liar.begin(anew=True)
            elif self.rng.random() < 0.2:
                await self.restart()
            seen = await self.tried(lambda: self.backend.inspect(launch_id))
            if isinstance(seen, Observation):
                if seen.phase is Phase.RUNNING:
                    return True
                if seen.phase is Phase.GONE and self.rng.random() < 0.3:
                    return False
            self._pass()
        raise AssertionError(f"seed {self.seed}: {launch_id} never runs")

    async def _served(self, launch_id: LaunchId) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            await self.tried(lambda: self.backend.renew(launch_id, serves=True))
            await self.tried(lambda: self.backend.inspect(launch_id))
            if self.rng.random() < 0.3:
                await self.restart()
            self._pass()

    async def _ended(self, launch_id: LaunchId) -> None:
        for _ in range(60):
            if self.rng.random() < 0.2:
                await self.restart()
            seen = await self.tried(
                lambda: self.backend.stop(launch_id),
                lambda: self.backend.inspect(launch_id),
            )
            if seen is not None and seen.phase is Phase.GONE:
                break
            self._pass()
        else:
            raise AssertionError(
                f"seed {self.seed}: {launch_id} is not over: {self.problem!r}"
            )
        assert not self.rig.cloud.paid, f"seed {self.seed}: {launch_id} is forgotten"

    async def clear(self) -> None:
        """End all that is kept, as the sweep and the commands do, while lists lie."""
        self.action, self.is_over = ENDS[self.cloud], True
        await self.restart()
        self.liar.begin(anew=True)
        for _ in range(6):
            names = await self.tried(self.backend.owned)
            for name in names or ():
                await self._ended(name)
            if self.cloud == "exoscale":
                await self.tried(self.backend.tidy)
            self._pass()

    def _pass(self) -> None:
        """Let some time pass, and now and then a list begin to lie."""
        self.rig.clock.ahead_s += self.rng.choice([1.0, 5.0, 20.0, 60.0])
        if self.rng.random() < 0.4:
            self.liar.begin()


@pytest.mark.parametrize("cloud", RIGS)
async def test_lists_that_lie_make_no_second_one_and_hide_none(
    tmp_path: Path, cloud: str
) -> None:
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        await asyncio.to_thread(folder.mkdir)
        async with RIGS[cloud](folder) as rig:
            if cloud == "fly":
                rig.lift_pace()  # it is real time
            rng = random.Random(seed)
            liar = Liar(rig, cloud, LIES[seed % len(LIES)])
            keeps = (seed // len(LIES)) % 2 == 0
            story = Story(rig, cloud, seed, rng, liar, "stop" if keeps else ENDS[cloud])
            liar.settle_in(rng)
            await story.restart()
            for number in range(2):
                await story.live(LaunchId(f"l{seed:08d}{number:08d}"))
            await story.clear()
            await story.backend.aclose()
            left = there(rig, cloud) + besides(rig, cloud)

        assert story.most <= 1, f"seed {seed}: {story.most} at once, {liar.lie}"
        assert not left, f"seed {seed}: {left} left, {liar.lie}"
