"""One controller over a fake cloud, for tests in virtual time."""

import random
from dataclasses import dataclass, field

from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.lifecycle.record import Policy
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.store.memory import MemoryStore
from tests.fakes.cloud import FakeCloud
from tests.fakes.probe import FakeProbe
from tests.virtual_time import LoopClock


@dataclass(slots=True)
class FleetRig:
    """A pool of one slot; it runs as soon as it is made."""

    cloud: FakeCloud = field(default_factory=FakeCloud)
    policy: Policy = field(default_factory=Policy)
    secrets: frozenset[str] = frozenset()
    timing: Timing = STANDARD
    store: MemoryStore = field(default_factory=MemoryStore)
    probe: FakeProbe = field(default_factory=FakeProbe)
    controller: Controller = field(init=False)
    pool: Pool = field(init=False)

    def __post_init__(self) -> None:
        self.controller = Controller(
            "default-0",
            Offer("fake", self.cloud, secrets=self.secrets),
            store=self.store,
            launches=self.store,
            probe=self.probe,
            clock=LoopClock(),
            policy=self.policy,
            rng=random.Random(1),
            timing=self.timing,
        )
        self.pool = Pool(
            [self.controller],
            store=self.store,
            clock=LoopClock(),
            max_waiting=9,
            timing=self.timing,
        )
        self.pool.start()

    async def lease(self) -> Lease:
        """Return a lease on an instance that is ready."""
        lease = await self.pool.lease("m", wait_s=60.0)
        assert lease is not None
        return lease
