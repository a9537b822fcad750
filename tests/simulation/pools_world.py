"""Three pools of three offers before three clouds, and their misfortunes, by a seed.

Each pool has one to four slots. The proxy may die before or after every write and
every act of a cloud, and at every await; the clouds outlive it. What must never happen
is looked for at each act of a cloud and after each turn.
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import Any

from ollama_proxy.base.errors import HoldLimitError, StoreError
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.lifecycle.record import AT_REST, LaunchId
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.backend import Observation, Phase, Traits
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.pool_slot import PoolSlot
from tests.fakes.cloud import CloudFaults, FakeCloud
from tests.simulation.mortal import BROKEN, HOUR_S, POLICY, Crash, MortalWorld
from tests.virtual_time import LoopClock

# Coarser than the product's: each look of forty controllers costs the test its time.
TIMING = Timing(
    longest_sleep_s=7200.0,
    plan_every_s=20.0,
    sweep_every_s=3600.0,
    use_grain_s=600.0,
    use_grain_least_s=600.0,
    probe_every_s=60.0,
    retry_pause_s=3.0,
)
OFFERS = ("a", "b", "c")
ORDERS = {"one": "abc", "two": "bca", "three": "cab"}
NO_DRIVER = Observation(Phase.FAILED, detail="no driver", reason="driver")
GONE_FOR_ROOM = Observation(Phase.FAILED, detail="no GPU", reason="capacity")
_LAST_REQUEST_ENDS_S = 1700.0
_YIELDING = 0.2


@dataclass(slots=True)
class Account:
    """Counts for one pool what its clients and its people did."""

    served_at: float = 0.0
    asked: int = 0
    answered: int = 0


class PoolsWorld(MortalWorld):
    """A seeded history of one deployment with several pools."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.clouds = {
            name: FakeCloud(
                rng=random.Random(seed * 7 + n), traits=Traits(poll_s=5.0, watch_s=60.0)
            )
            for n, name in enumerate(OFFERS)
        }
        self.most = {name: self.rng.choice((1, 2, 2, 3, 4)) for name in ORDERS}
        self.slots = {name: self.rng.choice((None, 1, 4)) for name in ORDERS}
        self.accounts = {name: Account() for name in ORDERS}
        self.violations: list[str] = []
        self.offer_of: dict[LaunchId, str] = {}
        self.ordered_at: dict[str, list[float]] = {name: [] for name in ORDERS}
        self._draws = 0
        for name, cloud in self.clouds.items():
            cloud.interrupt = self._maybe_crash
            cloud.made = self._look_at_made
            cloud.called = self._caller(name)
        self._begin()

    def _begin(self) -> None:
        super()._begin()
        pools = {name: self._pool(name) for name in ORDERS}
        for pool in pools.values():
            pool.start()
        self.pools = pools

    def _pool(self, name: str) -> Pool:
        def draw() -> LaunchId:
            self._draws += 1
            return LaunchId(f"{name}{self._draws}")

        slots = [
            PoolSlot(n, tuple(self._controller(name, n, o) for o in ORDERS[name]))
            for n in range(self.most[name])
        ]
        return Pool(
            slots,
            name=name,
            store=self.store,
            clock=LoopClock(),
            max_waiting=20,
            policy=PoolPolicy(max_instances=self.most[name], keep_extra_s=60.0),
            draw_launch_id=draw,
            timing=TIMING,
        )

    def _controller(self, pool: str, index: int, offer: str) -> Controller:
        return Controller(
            f"{pool}/{index}/{offer}",
            Offer(offer, self.clouds[offer], slots=self.slots[pool]),
            store=self.store,
            launches=self.store,
            probe=self.probe,
            clock=LoopClock(),
            policy=POLICY,
            rng=self.rng,
            timing=TIMING,
        )

    # What must never happen

    def _caller(self, offer: str) -> Any:
        def called(launch_id: LaunchId) -> None:
            """Look at a start call: on record, of one offer, alone on its slot."""
            first = self.offer_of.setdefault(launch_id, offer)
            if first != offer:
                self.violations.append(f"{launch_id} asked of {first} and {offer}")
            if self._dead:
                return
            on_record = [
                key
                for key, one in self.store.records.items()
                if one.launch_id == launch_id
            ]
            if [key.rpartition("/")[2] for key in on_record] != [offer]:
                self.violations.append(f"{launch_id} of {offer} on record {on_record}")
                return
            self._look_at_slot(on_record[0].rpartition("/")[0])

        return called

    def _look_at_slot(self, slot: str) -> None:
        """Look whether a slot has more than one launch that does not leave."""
        taken = [
            one.launch_id
            for key, one in self.store.records.items()
            if key.rpartition("/")[0] == slot
            and one.state not in AT_REST
            and not one.leaving
        ]
        if len(taken) > 1:
            self.violations.append(f"slot {slot} has {taken}")

    def _look_at_made(self, _launch_id: LaunchId) -> None:
        """Look whether a pool has more instances than it may, but for leaving ones."""
        made = [
            launch_id
            for cloud in self.clouds.values()
            for launch_id in cloud.instances
            if launch_id not in cloud.refused_ids
        ]
        for name, most in self.most.items():
            running = [one for one in made if one.rstrip("0123456789") == name]
            if len(running) > most:
                self.violations.append(f"pool {name} has {running} of {most}")

    def look_for_strays(self) -> None:
        """Look whether every instance that there is is on record."""
        known = self.store.launch_ids()
        for name, cloud in self.clouds.items():
            if strays := set(cloud.instances) - known:
                self.violations.append(f"nobody tracks {sorted(strays)} of {name}")

    def bought_in_vain(self, pool: str) -> int:
        """How many launches of the last hour served nobody, but for those ordered."""
        now = asyncio.get_running_loop().time()
        begin = max(now - HOUR_S, self.accounts[pool].served_at)
        bought = sum(
            at > begin
            for cloud in self.clouds.values()
            for launch_id, at in cloud.made_at.items()
            if launch_id.rstrip("0123456789") == pool
            and launch_id not in cloud.refused_ids
        )
        return bought - sum(at > begin - HOUR_S for at in self.ordered_at[pool])

    # What happens

    def request(self, pool: str) -> None:
        """Let a client ask; it may wait, stream for a while, or walk away."""
        self.accounts[pool].asked += 1
        wait_s = self.rng.choice((0.0, 0.0, 60.0, 900.0))
        self._spawn(self._request(pool, wait_s, self.rng.random() < 0.7))

    async def _request(self, pool: str, wait_s: float, is_use: bool) -> None:
        account, loop = self.accounts[pool], asyncio.get_running_loop()
        stream_s = self.rng.choice((0.0, 1.0, 20.0, 700.0))
        yields = self.rng.random() < _YIELDING
        is_use = is_use and not yields
        try:
            async with asyncio.timeout(wait_s + stream_s + 60.0):
                with contextlib.suppress(HoldLimitError, StoreError):
                    lease = await self.pools[pool].lease(
                        "m", wait_s=wait_s, yields=yields
                    )
                    if lease is not None:
                        with lease:
                            if is_use:
                                account.served_at = loop.time()
                                lease.mark_used()
                            await asyncio.sleep(stream_s)
                            if is_use:
                                account.served_at = loop.time()
        except (TimeoutError, Crash):
            pass
        finally:
            account.answered += 1

    def order(self, pool: str) -> None:
        """Let a person wake a pool."""
        self.ordered_at[pool].append(asyncio.get_running_loop().time())
        self._spawn(self._order(pool))

    async def _order(self, pool: str) -> None:
        with contextlib.suppress(StoreError, Crash):
            await self.pools[pool].wake(forced=True)

    def change_weather(self) -> None:
        """Draw new faults for one cloud, and for the process."""
        cloud, chance = self.clouds[self.rng.choice(OFFERS)], self.rng.choice
        cloud.faults = CloudFaults(
            no_room=chance((0.0, 0.0, 0.5, 1.0)),
            late=chance((0.0, 0.0, 0.3)),
            late_s=chance((10.0, 300.0)),
            refused=chance((0.0, 0.0, 0.3, 1.0)),
            lost_before=chance((0.0, 0.0, 0.3)),
            lost_after=chance((0.0, 0.0, 0.3)),
            look_fails=chance((0.0, 0.0, 0.3)),
            list_fails=chance((0.0, 0.5)),
            stop_fails=chance((0.0, 0.0, 0.5)),
            list_lag_s=chance((0.0, 5.0, 120.0)),
            boot_s=chance((0.0, 30.0, 200.0)),
            never_boots=self.rng.random() < 0.1,
        )
        cloud.end = chance((None,) * 6 + (BROKEN, NO_DRIVER, GONE_FOR_ROOM))
        if self.rng.random() < 0.2:  # an image that boots nowhere
            for one in self.clouds.values():
                one.faults, one.end = CloudFaults(), BROKEN
        self.probe.answers = self.rng.random() < 0.9
        self._crash_likelihood = chance((0.0, 0.0, 0.05, 0.3))
        self.store.reserve_s = chance((0.0, 0.0, 0.5, 20.0))

    async def turn(self) -> None:
        """Let one thing happen, and some time pass."""
        roll, pool = self.rng.random(), self.rng.choice(tuple(ORDERS))
        try:
            if roll < 0.35:
                for _ in range(self.rng.choice((1, 1, 8))):
                    self.request(pool)
            elif roll < 0.45 and self._requests:
                min(self._requests, key=lambda task: task.get_name()).cancel()
            elif roll < 0.75:
                self.change_weather()
            elif roll < 0.79:
                self.clouds[self.rng.choice(OFFERS)].preempt()
            elif roll < 0.83:
                self.pools[pool].stop()
            elif roll < 0.88:
                self.order(pool)
            elif roll < 0.94:
                await self.crash()
        except Crash:
            self._crashed.set()
        await self.pass_time(self.rng.choice((0.0, 0.05, 1.0, 10.0, 60.0, 400.0)))

    async def calm_down(self) -> None:
        """End every fault and let everything that was begun come to its end."""
        for cloud in self.clouds.values():
            cloud.faults = CloudFaults()
            cloud.end = None
        self.probe.answers = True
        self._crash_likelihood = 0.0
        self.store.reserve_s = 0.0
        await self.pass_time(_LAST_REQUEST_ENDS_S)
        launches = self.launches
        await self.pass_time(HOUR_S)
        if self.launches > launches:
            self.violations.append("a launch after the last request had ended")

    @property
    def paid(self) -> int:
        return sum(cloud.paid for cloud in self.clouds.values())

    @property
    def launches(self) -> int:
        return sum(cloud.launches for cloud in self.clouds.values())
