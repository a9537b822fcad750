"""A pool of several slots and offers over fake clouds, for tests in virtual time."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from ollama_proxy.core.lifecycle.record import LaunchId, Policy, Record
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.backend import Traits
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.house import House
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.pool_slot import PoolSlot
from tests.fakes.cloud import FakeCloud
from tests.fakes.probe import FakeProbe
from tests.fakes.store import FaultyStore
from tests.virtual_time import LoopClock

POLICY = Policy(idle_timeout_s=300.0, backoff_s=10.0, launch_limit=5)
BOX = Traits(externally_managed=True, poll_s=1.0, watch_s=30.0)


class MeasuredBoots:
    """Knows how long every launch takes."""

    def __init__(self, boot_s: float) -> None:
        self._boot_s = boot_s

    def slow_s(self, _offer: str) -> float | None:
        return self._boot_s


class SeveralOffers:
    """A proxy before several fake clouds, in order of preference, and what it wrote.

    ``box``: before them stands a server that somebody else manages. ``houses``: before
    all stand the nodes of these.
    """

    def __init__(
        self,
        offers: Sequence[str] = ("first", "second"),
        *,
        most: int = 1,
        policy: PoolPolicy | None = None,
        record_policy: Policy = POLICY,
        slots: int | None = None,
        box: bool = False,
        houses: Sequence[House] = (),
        load_s: float = 2.0,
        max_waiting: int = 1000,
        boot_s: float | None = None,
    ) -> None:
        self.boots = None if boot_s is None else MeasuredBoots(boot_s)
        self.names = tuple(offers)
        self.specs: dict[str, object] = {}
        self.most = most
        self.policy = policy or PoolPolicy(max_instances=most)
        self.record_policy = record_policy
        self.slots_of_each = slots
        self.max_waiting = max_waiting
        self.houses = tuple(houses)
        self.clouds = {name: FakeCloud() for name in self.names}
        self.box = FakeCloud(traits=BOX) if box else None
        self.probes = {name: FakeProbe(load_s=load_s) for name in (*self.names, "box")}
        self.store = FaultyStore()
        self.draws = 0
        self.pool = self.open()

    def open(self) -> Pool:
        """Begin a proxy on what the one before left."""
        slots = [
            PoolSlot(n, tuple(self._controller(n, name) for name in self.names))
            for n in range(self.most)
        ]
        if self.box is not None:
            slots.insert(0, PoolSlot(0, (self._controller(0, "box"),)))
        pool = Pool(
            slots,
            store=self.store,
            clock=LoopClock(),
            max_waiting=self.max_waiting,
            policy=self.policy,
            boots=self.boots,
            draw_launch_id=self.draw,
            houses=self.houses,
            rng=random.Random(1),
        )
        pool.start()
        return pool

    def draw(self) -> LaunchId:
        self.draws += 1
        return LaunchId(f"l{self.draws}")

    def _controller(self, slot: int, name: str) -> Controller:
        cloud = self.box if name == "box" else self.clouds[name]
        assert cloud is not None
        return Controller(
            f"default/{slot}/{name}",
            Offer(name, cloud, spec=self.specs.get(name), slots=self.slots_of_each),
            store=self.store,
            launches=self.store,
            probe=self.probes[name],
            clock=LoopClock(),
            policy=replace(self.record_policy),
            rng=random.Random(slot),
        )

    def controller(self, name: str, slot: int = 0) -> Controller:
        wanted = f"default/{slot}/{name}"
        return next(one for one in self.pool.controllers if one.slot == wanted)

    def record(self, name: str, slot: int = 0) -> Record:
        return self.controller(name, slot).record

    @property
    def paid(self) -> dict[str, int]:
        """How many machines of each offer there are."""
        return {name: cloud.paid for name, cloud in self.clouds.items()}

    @property
    def launches(self) -> dict[str, int]:
        return {name: cloud.launches for name, cloud in self.clouds.items()}

    @property
    def starts(self) -> dict[str, int]:
        """How many start calls each offer got."""
        return {n: cloud.calls.count("start") for n, cloud in self.clouds.items()}

    async def lease(self, wait_s: float = 60.0) -> Lease:
        lease = await self.pool.lease("m", wait_s=wait_s)
        assert lease is not None
        return lease

    async def serve(self, wait_s: float = 60.0) -> None:
        """Have one request answered."""
        with await self.lease(wait_s) as lease:
            lease.mark_used()

    async def restart(self) -> None:
        await self.pool.aclose()
        self.pool = self.open()


async def until(condition: Callable[[], bool], within_s: float = 600.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
