"""One proxy, one cloud and their misfortunes, as one function of a seed.

The proxy is the real one from the pool down; its process may die before or after every
write and every call of the cloud, and at every await. The cloud outlives it.
"""

import asyncio
import contextlib
import random

from ollama_proxy.base.errors import HoldLimitError, StoreError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Traits
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.pool_slot import slots_of
from tests.fakes.cloud import CloudFaults, FakeCloud
from tests.simulation.mortal import BROKEN, HOUR_S, POLICY, Crash, MortalWorld
from tests.virtual_time import LoopClock

_LONGEST_WAIT_S = 900.0
_SUCCEEDING = 0.7
_YIELDING = 0.2


class World(MortalWorld):
    """A seeded history of one deployment."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.cloud = FakeCloud(rng=random.Random(seed + 1))
        self.cloud.traits = Traits(poll_s=5.0, watch_s=30.0)
        self.answered = 0
        self.asked = 0
        self._ordered_at: list[float] = []
        self._served_at = 0.0
        self._launch_number = 0
        self.cloud.interrupt = self._maybe_crash
        self._begin()

    def _draw_launch_id(self) -> LaunchId:
        self._launch_number += 1
        return LaunchId(f"launch-{self._launch_number}")

    def _begin(self) -> None:
        super()._begin()
        controller = Controller(
            "default-0",
            Offer("fake", self.cloud),
            store=self.store,
            launches=self.store,
            probe=self.probe,
            clock=LoopClock(),
            policy=POLICY,
            rng=self.rng,
        )
        pool = Pool(
            slots_of([controller]),
            store=self.store,
            clock=LoopClock(),
            max_waiting=20,
            draw_launch_id=self._draw_launch_id,
        )
        pool.start()
        self.pool = pool

    def request(self, *, may_wake: bool | None = None) -> None:
        """Let a client ask; it may wait, stream for a while, or walk away.

        ``may_wake``: its key may wake an instance; None: as it happens.
        """
        self.asked += 1
        wait_s = self.rng.choice((0.0, 0.0, 60.0, _LONGEST_WAIT_S))
        if may_wake is None:
            may_wake = self.rng.random() >= _YIELDING
        self._spawn(self._request(wait_s, yields=not may_wake), name=str(self.asked))

    async def _request(self, wait_s: float, *, yields: bool) -> None:
        stream_s = self.rng.choice((0.0, 1.0, 20.0, 700.0))
        is_use = self.rng.random() < _SUCCEEDING
        try:
            async with asyncio.timeout(wait_s + stream_s + 60.0):
                with contextlib.suppress(HoldLimitError, StoreError):
                    lease = await self.pool.lease("m", wait_s=wait_s, yields=yields)
                    if lease is not None:
                        try:
                            with lease:
                                if is_use:
                                    lease.mark_used()
                                await asyncio.sleep(stream_s)
                        finally:
                            if is_use and not yields:
                                self._served_at = asyncio.get_running_loop().time()
        finally:
            self.answered += 1

    def order(self) -> None:
        """Let a person wake the instance."""
        self._ordered_at.append(asyncio.get_running_loop().time())
        self._spawn(self._order(), name=str(self.asked))

    async def _order(self) -> None:
        with contextlib.suppress(StoreError):
            await self.pool.wake(forced=True)

    @property
    def is_locked_out(self) -> bool:
        """Whether a person has to act before a request launches anything."""
        return self.pool.controllers[0].record.lockout is not None

    @property
    def bought_in_vain(self) -> int:
        """How many launches of the last hour served no request, without ordered ones.

        An order may be carried out after the present stop has ended.
        """
        begin = max(asyncio.get_running_loop().time() - HOUR_S, self._served_at)
        made = self.cloud.made_at.values()  # one that was taken away is made again
        bought = sum(at > begin for at in made)
        return bought - sum(at > begin - HOUR_S for at in self._ordered_at)

    def abandon(self) -> None:
        """Let one client hang up."""
        if self._requests:
            tasks = sorted(self._requests, key=lambda task: int(task.get_name()))
            self.rng.choice(tasks).cancel()

    def _chance(self) -> float:
        return self.rng.choice((0.0, 0.0, 0.1, 0.5))

    def change_weather(self) -> None:
        """Draw new faults for the cloud and the process."""
        self.cloud.faults = CloudFaults(
            refused=self._chance(),
            lost_before=self._chance(),
            lost_after=self._chance(),
            look_fails=self._chance(),
            list_fails=self._chance(),
            stop_fails=self._chance(),
            list_lag_s=self.rng.choice((0.0, 5.0, 120.0)),
            boot_s=self.rng.choice((0.0, 30.0, 400.0)),
            never_boots=self.rng.random() < 0.1,
        )
        self.cloud.end = BROKEN if self.rng.random() < 0.2 else None
        self.probe.answers = self.rng.random() < 0.9
        self._crash_likelihood = self.rng.choice((0.0, 0.0, 0.05, 0.3))
        self.store.reserve_s = self.rng.choice((0.0, 0.0, 0.5, 20.0))

    async def turn(self) -> None:
        """Let one thing happen, and some time pass."""
        roll = self.rng.random()
        try:
            if roll < 0.45:
                self.request()
            elif roll < 0.55:
                self.abandon()
            elif roll < 0.70:
                self.change_weather()
            elif roll < 0.74:
                self.cloud.preempt()
            elif roll < 0.78:
                self.pool.stop()
            elif roll < 0.82:
                self.order()
            elif roll < 0.87:
                await self.crash()
        except Crash:
            self._crashed.set()
        await self.pass_time(self.rng.choice((0.0, 0.05, 1.0, 10.0, 60.0, 400.0)))

    async def calm_down(self) -> None:
        """End every fault and let everything that was begun come to its end."""
        self.cloud.faults = CloudFaults()
        self.cloud.end = None
        self.probe.answers = True
        self._crash_likelihood = 0.0
        self.store.reserve_s = 0.0
        await self.pass_time(4 * 3600.0)
