"""One proxy, one cloud and their misfortunes, as one function of a seed.

The proxy is the real one from the pool down; its process may die before or after every
write and every call of the cloud, and at every await. The cloud outlives it.
"""

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from typing import Any

from ollama_proxy.base.errors import HoldLimitError, StoreError
from ollama_proxy.core.lifecycle.record import LaunchId, Policy
from ollama_proxy.fleet.backend import Observation, Phase, Traits
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.pool_slot import slots_of
from tests.fakes.cloud import CloudFaults, FakeCloud
from tests.fakes.probe import FakeProbe
from tests.fakes.store import FaultyStore
from tests.virtual_time import LoopClock

POLICY = Policy(
    idle_timeout_s=300.0,
    start_timeout_s=600.0,
    drain_timeout_s=120.0,
    backoff_s=10.0,
    backoff_max_s=300.0,
    launch_limit=5,
)
_HOUR_S = 3600.0
BROKEN = Observation(Phase.FAILED, detail="it does not come up")
_LONGEST_WAIT_S = 900.0
_SUCCEEDING = 0.7


class Crash(BaseException):
    """The process dies here; nothing after this line runs."""


class World:
    """A seeded history of one deployment."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cloud = FakeCloud(rng=random.Random(seed + 1))
        self.cloud.traits = Traits(poll_s=5.0, watch_s=30.0)
        self.store = FaultyStore()
        self.probe = FakeProbe()
        self.answered = 0
        self.asked = 0
        self._ordered_at: list[float] = []
        self._served_at = 0.0
        self._launch_number = 0
        self._requests: set[asyncio.Task[None]] = set()
        self._crash_likelihood = 0.0
        self._dead = False
        self._crashed = asyncio.Event()
        self.store.interrupt = self._maybe_crash
        self.cloud.interrupt = self._maybe_crash
        self.pool = self._boot()

    def _draw_launch_id(self) -> LaunchId:
        self._launch_number += 1
        return LaunchId(f"launch-{self._launch_number}")

    def _boot(self) -> Pool:
        """Begin a new proxy process on what the old one left."""
        self._dead = False
        self._crashed.clear()
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
        return pool

    def _maybe_crash(self, _where: str) -> None:
        """Be the moment at which the process dies, now and then."""
        if self._dead:
            raise Crash
        if self.rng.random() < self._crash_likelihood:
            self._dead = True
            self._crashed.set()
            raise Crash

    async def crash(self) -> None:
        """Kill the process and begin another. No cleanup of the old one acts."""
        self._dead = True
        await self.close()
        self.pool = self._boot()

    def request(self) -> None:
        """Let a client ask; it may wait, stream for a while, or walk away."""
        self.asked += 1
        self._spawn(self._request(self.rng.choice((0.0, 0.0, 60.0, _LONGEST_WAIT_S))))

    async def _request(self, wait_s: float) -> None:
        stream_s = self.rng.choice((0.0, 1.0, 20.0, 700.0))
        is_use = self.rng.random() < _SUCCEEDING
        try:
            async with asyncio.timeout(wait_s + stream_s + 60.0):
                with contextlib.suppress(HoldLimitError, StoreError):
                    lease = await self.pool.lease("m", wait_s=wait_s)
                    if lease is not None:
                        try:
                            with lease:
                                if is_use:
                                    lease.mark_used()
                                await asyncio.sleep(stream_s)
                        finally:
                            if is_use:
                                self._served_at = asyncio.get_running_loop().time()
        finally:
            self.answered += 1

    def order(self) -> None:
        """Let a person wake the instance."""
        self._ordered_at.append(asyncio.get_running_loop().time())
        self._spawn(self._order())

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
        begin = max(asyncio.get_running_loop().time() - _HOUR_S, self._served_at)
        made = self.cloud.made_at.values()  # one that was taken away is made again
        bought = sum(at > begin for at in made)
        return bought - sum(at > begin - _HOUR_S for at in self._ordered_at)

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coro, name=str(self.asked))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

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
        await self._pass_time(self.rng.choice((0.0, 0.05, 1.0, 10.0, 60.0, 400.0)))

    async def _pass_time(self, length_s: float) -> None:
        """Let time pass; a process that died on the way is begun again."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + length_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._crashed.wait()
            if not self._crashed.is_set():
                return
            self._crash_likelihood = 0.0
            await self.crash()

    async def calm_down(self) -> None:
        """End every fault and let everything that was begun come to its end."""
        self.cloud.faults = CloudFaults()
        self.cloud.end = None
        self.probe.answers = True
        self._crash_likelihood = 0.0
        self.store.reserve_s = 0.0
        await self._pass_time(4 * 3600.0)

    async def close(self) -> None:
        """End everything without a word."""
        self._dead = True
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
