"""A pool of one slot over a fake cloud, for tests in virtual time."""

import random
from collections.abc import Collection

from ollama_proxy.core.lifecycle.record import Policy, Record, State
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.pool_slot import slots_of
from tests.fakes.cloud import FakeCloud
from tests.fakes.probe import FakeProbe
from tests.fakes.store import FaultyStore
from tests.slots import SLOT
from tests.virtual_time import LoopClock


class Deployment:
    """A proxy before a fake cloud, and what it wrote down; it runs once it is made."""

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        cloud: FakeCloud | None = None,
        store: FaultyStore | None = None,
        load_s: float = 2.0,
        models: Collection[str] = (),
        secrets: Collection[str] = (),
        max_waiting: int = 10_000,
    ) -> None:
        self.cloud = cloud or FakeCloud()
        self.store = store or FaultyStore()
        self.probe = FakeProbe(load_s=load_s)
        self.policy = policy or Policy(idle_timeout_s=300)
        self.models, self.secrets = list(models), set(secrets)
        self.max_waiting = max_waiting
        self.pool = self._open()

    def _open(self) -> Pool:
        controller = Controller(
            SLOT,
            Offer("fake", self.cloud, self.models, secrets=self.secrets),
            store=self.store,
            launches=self.store,
            probe=self.probe,
            clock=LoopClock(),
            policy=self.policy,
            rng=random.Random(1),
        )
        pool = Pool(
            slots_of([controller]),
            store=self.store,
            clock=LoopClock(),
            max_waiting=self.max_waiting,
        )
        pool.start()
        return pool

    @property
    def controller(self) -> Controller:
        return self.pool.controllers[0]

    @property
    def record(self) -> Record:
        return self.controller.record

    @property
    def state(self) -> State:
        return self.record.state

    async def lease(self) -> Lease:
        """Return a lease on an instance that is ready."""
        lease = await self.pool.lease("m", wait_s=60.0)
        assert lease is not None
        return lease

    async def restart(self) -> None:
        """End the process, and begin another on the same store."""
        await self.pool.aclose()
        self.pool = self._open()
