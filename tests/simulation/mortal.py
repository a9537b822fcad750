"""A process that may die at any write, call and await, and is begun again."""

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from typing import Any

from ollama_proxy.core.lifecycle.record import Policy
from ollama_proxy.fleet.backend import Observation, Phase
from tests.fakes.probe import FakeProbe
from tests.fakes.store import FaultyStore

POLICY = Policy(
    idle_timeout_s=300.0,
    start_timeout_s=600.0,
    drain_timeout_s=120.0,
    backoff_s=10.0,
    backoff_max_s=300.0,
    launch_limit=5,
)
BROKEN = Observation(Phase.FAILED, detail="it does not come up")
HOUR_S = 3600.0


class Crash(BaseException):
    """The process dies here; nothing after this line runs."""


class MortalWorld:
    """A seeded history of a process; what it wrote outlives it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store, self.probe = FaultyStore(), FakeProbe()
        self._requests: set[asyncio.Task[None]] = set()
        self._crash_likelihood = 0.0
        self._dead = False
        self._crashed = asyncio.Event()
        self.store.interrupt = self._maybe_crash

    def _begin(self) -> None:
        """Begin a new process on what the old one left."""
        self._dead = False
        self._crashed.clear()

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
        self._begin()

    def _spawn(
        self, coro: Coroutine[Any, Any, None], *, name: str | None = None
    ) -> None:
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def pass_time(self, length_s: float) -> None:
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

    async def close(self) -> None:
        """End everything without a word."""
        self._dead = True
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
