"""A fake Exoscale with guests, and backends on it, for tests."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.exoscale.backend import ExoscaleBackend
from ollama_proxy.backends.exoscale.opening import open_backend
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import BackendContext
from ollama_proxy.fleet.offer_tag import OfferTag
from ollama_proxy.store.memory import MemoryNotes
from tests.fakes.exoscale.cloud import FakeExoscale, FakeInstance, Timing, new_id
from tests.fakes.exoscale.guest import Guests, guests_of
from tests.fakes.exoscale.server import KEY, SECRET, ExoscaleServer, exoscale_server
from tests.ports import held_port
from tests.virtual_time import JumpingClock

OWNER = "0123456789abcdef"


@dataclass(slots=True)
class Rig:
    """A cloud, and the disk of a deployment.

    ``others``: instances of other proxies, under their owner ids or under ours.
    ``timing``: for backends opened from then on.
    """

    cloud: FakeExoscale
    server: ExoscaleServer
    guests: Guests
    clock: JumpingClock
    folder: Path
    port: int
    notes: dict[str, MemoryNotes] = field(default_factory=dict)
    remembers: Callable[[LaunchId], bool] = lambda _launch_id: True
    others: list[FakeInstance] = field(default_factory=list)
    timing: CloudTiming = STANDARD
    offer: OfferTag = field(default_factory=OfferTag)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def paid(self) -> list[FakeInstance]:
        """What is paid for, without the instances of other proxies."""
        return [one for one in self.cloud.paid if one not in self.others]

    def begun_elsewhere(self, owner_id: str, launch_id: LaunchId) -> FakeInstance:
        """Have another proxy run an instance, with its group and a long lease."""
        group_id = new_id()
        group = {"id": group_id, "name": f"ollama-proxy-{owner_id}", "rules": []}
        if owner_id != OWNER:  # else both have one
            self.cloud.groups[group_id] = group
        labels = {
            "managed-by": "ollama-proxy",
            "owner": f"o{owner_id}",
            "launch": str(launch_id),
            "lease": f"t{self.clock.wall() + 1e8:.0f}",
        }
        body = {"name": f"ollama-proxy-{launch_id}", "disk-size": 50, "labels": labels}
        made = self.cloud.add("at-vie-2", body)
        self.cloud.bought -= 1
        self.others.append(made)
        return made

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
            self.notes.setdefault(owner_id + self.offer.name, MemoryNotes()),
            self.clock,
            {"exoscale": self.settings(**more)},
            self.remembers,
            instance_environment=self.environment,
            offer=self.offer,
        )
        return open_backend(
            context,
            port=self.port,
            poll_s=0.02,
            sleep=self.clock.sleep,
            timing=self.timing,
        )


@contextlib.asynccontextmanager
async def exoscale_rig(
    folder: Path, timing: Timing | None = None
) -> AsyncIterator[Rig]:
    """Run a fake Exoscale and its guests."""
    clock = JumpingClock()
    cloud = FakeExoscale(clock.now, timing or Timing())
    port = held_port()  # every guest listens on it, each at an address of its own
    async with exoscale_server(cloud) as server, guests_of(cloud, port) as guests:
        yield Rig(cloud, server, guests, clock, folder, port)
