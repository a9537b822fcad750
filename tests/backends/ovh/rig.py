"""A fake AI Deploy with guests, and backends on it, for tests."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.ovh.backend import OvhBackend
from ollama_proxy.backends.ovh.opening import open_backend
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import BackendContext
from ollama_proxy.fleet.offer_tag import OfferTag
from ollama_proxy.store.memory import MemoryNotes
from tests.fakes.ovh.cloud import FakeOvh, Timing
from tests.fakes.ovh.command import OvhCommand, install
from tests.fakes.ovh.guest import Guests, guests_of
from tests.fakes.ovh.server import CALL_TOKEN, OvhServer, ovh_server, token_of
from tests.fakes.registry import registry
from tests.virtual_time import JumpingClock

OWNER = "0123456789abcdef"
IMAGE = f"{registry()}/team/ollama:0.32.15"
DRIVERS = ("rest", "cli")


@dataclass(slots=True)
class Rig:
    """A cloud, and the disk of a deployment.

    ``timing``: for backends opened from then on.
    """

    cloud: FakeOvh
    server: OvhServer
    command: OvhCommand
    guests: Guests
    clock: JumpingClock
    folder: Path
    program: Path
    driver: str
    notes: dict[str, MemoryNotes] = field(default_factory=dict)
    remembers: Callable[[LaunchId], bool] = lambda _launch_id: True
    timing: CloudTiming = STANDARD
    offer: OfferTag = field(default_factory=OfferTag)
    environment: dict[str, str] = field(default_factory=dict)

    def settings(self, **more: object) -> OvhSettings:
        region = str(more.get("region", "GRA"))
        own: dict[str, object] = {"ai_token": token_of(region)}
        if self.driver == "cli":
            own = {"call_token": CALL_TOKEN, "ovhai_bin": str(self.program)}
        common = {
            "driver": self.driver,
            "api_url": f"{self.server.url}/{{region}}",
            "image": IMAGE,
        }
        return OvhSettings.model_validate(common | own | more)

    def open(self, owner_id: str = OWNER, /, **more: object) -> OvhBackend:
        """Open the backend as a new process of that deployment would."""
        context = BackendContext(
            owner_id,
            self.folder / owner_id,
            self.notes.setdefault(owner_id + self.offer.name, MemoryNotes()),
            self.clock,
            {"ovh": self.settings(**more)},
            self.remembers,
            os.environ,
            instance_environment=self.environment,
            offer=self.offer,
        )
        return open_backend(context, poll_s=0.02, timing=self.timing)


@contextlib.asynccontextmanager
async def ovh_rig(
    folder: Path, driver: str = "rest", timing: Timing | None = None
) -> AsyncIterator[Rig]:
    """Run a fake AI Deploy and its guests."""
    clock = JumpingClock()
    cloud = FakeOvh(clock.now, timing or Timing())
    async with ovh_server(cloud) as server, guests_of(server) as guests:
        command = OvhCommand(server)
        program, runner = await install(command, folder / "bin")
        try:
            yield Rig(cloud, server, command, guests, clock, folder, program, driver)
        finally:
            server.closing.set()
            await runner.cleanup()
