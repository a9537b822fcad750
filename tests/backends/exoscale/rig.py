"""A fake Exoscale with guests, and backends on it, for tests."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from ollama_proxy.backends.exoscale.backend import ExoscaleBackend, open_backend
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import BackendContext
from tests.fakes.exoscale.cloud import FakeExoscale, Timing
from tests.fakes.exoscale.guest import Guests, guests_of
from tests.fakes.exoscale.server import KEY, SECRET, ExoscaleServer, exoscale_server
from tests.fakes.store import MemoryNotes
from tests.virtual_time import JumpingClock

OWNER = "0123456789abcdef"


@dataclass(slots=True)
class Rig:
    """A cloud, and what a deployment keeps on its disk."""

    cloud: FakeExoscale
    server: ExoscaleServer
    guests: Guests
    clock: JumpingClock
    folder: Path
    port: int
    notes: dict[str, MemoryNotes] = field(default_factory=dict)
    remembers: Callable[[LaunchId], bool] = lambda _launch_id: True

    def settings(self, **more: object) -> ExoscaleSettings:
        return ExoscaleSettings.model_validate(
            {
                "api_key": KEY,
                "api_secret": SECRET,
                "api_endpoint": self.server.url,
                "zone": "at-vie-2",
            }
            | more
        )

    def open(self, owner_id: str = OWNER, **more: str) -> ExoscaleBackend:
        """Open the backend as a new process of that deployment would."""
        context = BackendContext(
            owner_id,
            self.folder / owner_id,
            self.notes.setdefault(owner_id, MemoryNotes()),
            self.clock,
            {"exoscale": self.settings(**more)},
            self.remembers,
        )
        return open_backend(
            context, port=self.port, poll_s=0.02, sleep=self.clock.sleep
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.7.2", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def exoscale_rig(
    folder: Path, timing: Timing | None = None
) -> AsyncIterator[Rig]:
    """Run a fake Exoscale and its guests."""
    clock = JumpingClock()
    cloud = FakeExoscale(clock.now, timing or Timing())
    port = _free_port()
    async with exoscale_server(cloud) as server, guests_of(cloud, port) as guests:
        yield Rig(cloud, server, guests, clock, folder, port)
