"""A fake Fly with guests, and backends on it, for tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.backend import FlyBackend
from ollama_proxy.backends.fly.opening import open_backend
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import BackendContext
from ollama_proxy.fleet.offer_tag import OfferTag
from ollama_proxy.store.memory import MemoryNotes
from tests.fakes.fly.cloud import FakeApp, FakeFly, Timing
from tests.fakes.fly.guest import Guests, guests_of
from tests.fakes.fly.server import TOKEN, FlyServer, fly_server
from tests.virtual_time import JumpingClock

OWNER = "0123456789abcdef"
IMAGE = "127.0.0.1:9/team/ollama:0.32.15"  # nothing answers there
APP = "llm"
UNPACED = CloudTiming(looks=(10_000.0, 1.0), actions=(10_000.0, 1.0))
"""Keeps no pace: for tests in which time is hastened, or nobody counts."""


@dataclass(slots=True)
class Rig:
    """A cloud, and the disk of a deployment.

    ``timing``: for backends opened from then on.
    """

    cloud: FakeFly
    server: FlyServer
    guests: Guests
    clock: JumpingClock
    folder: Path
    app: FakeApp
    notes: dict[str, MemoryNotes] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)
    remembers: Callable[[LaunchId], bool] = lambda _launch_id: True
    timing: CloudTiming = STANDARD
    offer: OfferTag = field(default_factory=OfferTag)
    environment: dict[str, str] = field(default_factory=dict)

    def settings(self, **more: object) -> FlySettings:
        common: dict[str, object] = {
            "api_token": TOKEN,
            "app": APP,
            "api_url": self.server.url,
            "app_url": f"{self.server.url}/edge/{{app}}",
            "image": IMAGE,
        }
        return FlySettings.model_validate(common | more)

    def open(self, owner_id: str = OWNER, /, **more: object) -> FlyBackend:
        """Open the backend as a new process of that deployment would."""
        context = BackendContext(
            owner_id,
            self.folder / owner_id,
            self.notes.setdefault(owner_id + self.offer.name, MemoryNotes()),
            self.clock,
            {"fly": self.settings(**more)},
            self.remembers,
            instance_environment=self.environment,
            offer=self.offer,
        )
        return open_backend(context, poll_s=0.05, sleep=self.sleep, timing=self.timing)

    def api(self) -> FlyApi:
        return FlyApi(
            APP,
            url=self.server.url,
            token=TOKEN,
            clock=self.clock,
            sleep=self.sleep,
            timing=self.timing,
        )

    def lift_pace(self) -> None:
        """Lift the limits on both sides."""
        self.server.is_paced = False
        self.timing = replace(self.timing, looks=UNPACED.looks, actions=UNPACED.actions)

    async def sleep(self, length_s: float) -> None:
        """Let the time pass that Fly wants to be left alone."""
        self.slept.append(length_s)
        self.clock.ahead_s += length_s
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def fly_rig(
    folder: Path, timing: Timing | None = None, *, is_paced: bool = True
) -> AsyncIterator[Rig]:
    """Run a fake Fly with one empty app, and its guests."""
    clock = JumpingClock()
    cloud = FakeFly(clock.now, timing or Timing())
    app = cloud.add_app(APP)
    async with fly_server(cloud) as server, guests_of(server) as guests:
        rig = Rig(cloud, server, guests, clock, folder, app)
        if not is_paced:
            rig.lift_pace()
        yield rig
