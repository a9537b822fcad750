"""A cloud in memory: instances, lag, faults on demand, and a bill."""

import asyncio
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ollama_proxy.base.errors import (
    CapacityError,
    OutcomeUnknownError,
    TransientError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Observation, Phase, Traits, Upstream


@dataclass(slots=True)
class CloudInstance:
    """A machine of the fake cloud; the moments are loop time."""

    launch_id: LaunchId
    created_at: float
    boots_at: float
    visible_at: float


@dataclass(slots=True)
class CloudFaults:
    """How likely each misfortune is, 0–1, and how long things take, in seconds.

    ``no_room``: the cloud has none. ``late``: a create acts only ``late_s`` after its
    answer, which is that it is unknown what it did, or even that there was no room.
    """

    no_room: float = 0.0
    late: float = 0.0
    late_s: float = 60.0
    refused: float = 0.0
    lost_before: float = 0.0
    lost_after: float = 0.0
    look_fails: float = 0.0
    list_fails: float = 0.0
    stop_fails: float = 0.0
    list_lag_s: float = 0.0
    boot_s: float = 0.0
    travel_s: float = 0.0
    never_boots: bool = False


@dataclass(slots=True, eq=False)
class FakeCloud:
    """A backend whose cloud lives as long as the test, independently of the proxy.

    ``paid`` is what costs money now; ``most_paid`` the most there ever was.
    ``end`` is what is seen of each instance that has booted, in place of a running one.
    ``made_at`` are the moments at which the launches were first made, ``asked`` those
    of all start calls; ``refused_ids`` had no room, ``on_their_way`` are creates that
    act later, and when. ``called`` is called with each start, ``made`` with each
    instance.
    """

    rng: random.Random = field(default_factory=lambda: random.Random(0))
    faults: CloudFaults = field(default_factory=CloudFaults)
    traits: Traits = field(default_factory=lambda: Traits(poll_s=1.0, watch_s=30.0))
    instances: dict[LaunchId, CloudInstance] = field(default_factory=dict)
    most_paid: int = 0
    launches: int = 0
    made_at: dict[LaunchId, float] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    asked: list[tuple[float, LaunchId]] = field(default_factory=list)
    refused_ids: set[LaunchId] = field(default_factory=set)
    on_their_way: dict[LaunchId, float] = field(default_factory=dict)
    start_error: Exception | None = None
    end: Observation | None = None
    interrupt: Callable[[str], None] = lambda _where: None
    made: Callable[[LaunchId], None] = lambda _launch_id: None
    called: Callable[[LaunchId], None] = lambda _launch_id: None

    @property
    def paid(self) -> int:
        return len(self.instances)

    def _unlucky(self, likelihood: float) -> bool:
        return self.rng.random() < likelihood

    async def _travel(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.01, 0.5) + self.faults.travel_s)

    async def start(self, launch_id: LaunchId) -> None:
        """Start; a call on its way arrives, whether its caller still waits or not."""
        self.calls.append("start")
        self.asked.append((asyncio.get_running_loop().time(), launch_id))
        self.called(launch_id)
        call = asyncio.get_running_loop().create_task(self._start(launch_id))
        await asyncio.shield(call)

    async def _start(self, launch_id: LaunchId) -> None:
        await self._travel()
        if self.start_error is not None:
            raise self.start_error
        if self._unlucky(self.faults.refused):
            raise TransientError("the fake cloud said 500")
        if self._unlucky(self.faults.lost_before):
            raise OutcomeUnknownError("the call was lost on its way")
        if launch_id not in self.instances and self._unlucky(self.faults.late):
            self._create_later(launch_id)
            if self._unlucky(0.5):
                raise OutcomeUnknownError("the answer was lost on its way")
            self._refuse(launch_id)
        if launch_id not in self.instances and self._unlucky(self.faults.no_room):
            self._refuse(launch_id)
        self.interrupt("before start acts")
        self._create(launch_id)
        self.interrupt("after start acted")
        await self._travel()
        if self._unlucky(self.faults.lost_after):
            raise OutcomeUnknownError("the answer was lost on its way")

    def _refuse(self, launch_id: LaunchId) -> None:
        self.refused_ids.add(launch_id)
        raise CapacityError("the fake cloud has no room")

    def _create_later(self, launch_id: LaunchId) -> None:
        """Let a create act once its time has come, whatever becomes of the proxy."""
        loop = asyncio.get_running_loop()
        if launch_id not in self.on_their_way:
            self.on_their_way[launch_id] = loop.time() + self.faults.late_s
            loop.call_later(self.faults.late_s, self._arrive, launch_id)

    def _arrive(self, launch_id: LaunchId) -> None:
        del self.on_their_way[launch_id]
        self._create(launch_id)

    def _create(self, launch_id: LaunchId) -> None:
        if launch_id in self.instances:
            return
        now = asyncio.get_running_loop().time()
        boot_s = self.faults.boot_s * self.rng.uniform(0.5, 1.5)
        self.instances[launch_id] = CloudInstance(
            launch_id,
            created_at=now,
            boots_at=float("inf") if self.faults.never_boots else now + boot_s,
            visible_at=now + self.faults.list_lag_s * self.rng.random(),
        )
        self.launches += 1
        self.made_at.setdefault(launch_id, now)
        self.most_paid = max(self.most_paid, self.paid)
        self.made(launch_id)

    async def inspect(self, launch_id: LaunchId) -> Observation:
        self.calls.append("inspect")
        await self._travel()
        if self._unlucky(self.faults.look_fails):
            raise TransientError("the fake cloud did not answer")
        if launch_id in self.on_their_way:
            raise TransientError("it may turn up still")
        instance = self.instances.get(launch_id)
        if instance is None:
            return Observation(Phase.GONE)
        now = asyncio.get_running_loop().time()
        if now < instance.visible_at:
            raise TransientError("the list does not show it yet")
        if now < instance.boots_at:
            return Observation(Phase.PENDING, detail="booting")
        if self.end is not None:
            return self.end
        return Observation(Phase.RUNNING, Upstream(f"http://{launch_id}.test"))

    async def stop(self, launch_id: LaunchId) -> None:
        self.calls.append("stop")
        await self._travel()
        if self._unlucky(self.faults.stop_fails):
            raise TransientError("the fake cloud could not delete")
        self.interrupt("before stop acts")
        self.instances.pop(launch_id, None)
        self.interrupt("after stop acted")
        await self._travel()

    async def owned(self) -> Collection[LaunchId]:
        await self._travel()
        if self._unlucky(self.faults.list_fails):
            raise TransientError("the list failed")
        now = asyncio.get_running_loop().time()
        return {i.launch_id for i in self.instances.values() if now >= i.visible_at}

    async def aclose(self) -> None:
        """Nothing is open."""

    def preempt(self) -> None:
        """Take every machine away, as a provider may."""
        self.instances.clear()


@dataclass(slots=True, eq=False)
class ReportingCloud(FakeCloud):
    """A cloud that supports reports on a launch.

    ``report_fault``: it ``hangs``, it ``clings`` (it hangs and ignores its
    cancellation), or it raises the given exception.
    """

    report_text: str = "apt-get: Unable to locate package nvidia-driver"
    report_fault: str | Exception = ""
    reports: list[LaunchId] = field(default_factory=list)

    async def report(self, launch_id: LaunchId) -> str:
        self.reports.append(launch_id)
        if isinstance(self.report_fault, Exception):
            raise self.report_fault
        while self.report_fault:
            try:
                await asyncio.sleep(3600.0)
            except asyncio.CancelledError:
                if self.report_fault == "hangs":
                    raise
        return self.report_text
