"""The Fly backend keeps the contract, on the strict fake."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest

from ollama_proxy.backends.contract import BackendContract
from ollama_proxy.fleet.backend import Backend
from tests.backends.fly.rig import Rig, fly_rig
from tests.fakes.fly.cloud import Timing


@pytest.mark.usefixtures("without_pace")
class TestStop(BackendContract):
    rig: Rig
    idle_action: ClassVar[str] = "stop"

    @pytest.fixture(autouse=True)
    async def with_a_cloud(self) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            timing = Timing(start_s=0.05, stop_s=0.05, destroy_s=0.05, destroyed_s=0.05)
            async with fly_rig(Path(folder), timing, is_paced=False) as self.rig:
                yield
                async with asyncio.timeout(5):  # the last stop is not waited for
                    while self.rig.cloud.paid:
                        await asyncio.sleep(0.01)

    async def open_backend(self, owner_id: str) -> Backend:
        if owner_id != self.owner_id:
            self.rig.cloud.apps.setdefault("other", self.rig.cloud.add_app("other"))
            return self.rig.open(owner_id, idle_action=self.idle_action, app="other")
        return self.rig.open(owner_id, idle_action=self.idle_action)


class TestDestroy(TestStop):
    idle_action = "destroy"


class TestSuspend(TestStop):
    idle_action = "suspend"


class TestWithoutNotes(TestStop):
    """A process that lost its notes finds everything by the marks."""

    async def open_backend(self, owner_id: str) -> Backend:
        self.rig.notes.clear()
        return await super().open_backend(owner_id)


class TestDestroyWithoutNotes(TestWithoutNotes):
    idle_action = "destroy"
