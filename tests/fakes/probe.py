"""A probe without a server."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from ollama_proxy.core.lifecycle.record import Fault, Progress, Stage
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.connect_faults import ConnectFault
from ollama_proxy.fleet.readiness import PreparationError


@dataclass(slots=True)
class FakeProbe:
    """Makes every server ready after ``load_s`` seconds, unless a fault is set."""

    load_s: float = 0.0
    answers: bool = True
    fault: Fault | None = None
    steps: Sequence[Progress] = ()
    step_s: float = 1.0
    prepared: list[str | None] = field(default_factory=list)

    async def alive(self, upstream: Upstream) -> bool:
        await asyncio.sleep(0)
        return self.answers

    async def look(self, upstream: Upstream) -> ConnectFault | None:
        alive = await self.alive(upstream)
        return None if alive else ConnectFault("nothing listens there", passes=True)

    async def prepare(
        self, upstream: Upstream, wanted: Sequence[str], model: str | None
    ) -> AsyncGenerator[Progress, None]:
        yield Progress(Stage.CONNECTING)
        for progress in self.steps:
            await asyncio.sleep(self.step_s)
            yield progress
        yield Progress(Stage.LOADING, detail=model or "")
        await asyncio.sleep(self.load_s)
        while not self.answers:
            await asyncio.sleep(1.0)
        if self.fault is not None:
            raise PreparationError(self.fault)
        self.prepared.append(model)

    async def contents(self, upstream: Upstream) -> Snapshot:
        return Snapshot(b'{"models":[]}', "0.33.0")
