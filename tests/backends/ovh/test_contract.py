"""The OVH backend keeps the contract by both drivers, on the strict fake."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest

from ollama_proxy.backends.contract import BackendContract
from ollama_proxy.fleet.backend import Backend
from tests.backends.ovh.rig import Rig, ovh_rig
from tests.fakes.ovh.cloud import Timing


class TestRest(BackendContract):
    rig: Rig
    driver: ClassVar[str] = "rest"
    idle_action: ClassVar[str] = "stop"

    @pytest.fixture(autouse=True)
    async def with_a_cloud(self) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            timing = Timing(scale_s=0.05, stop_s=0.05, delete_s=0.05, deleted_s=0.05)
            async with ovh_rig(Path(folder), self.driver, timing) as self.rig:
                yield
                async with asyncio.timeout(5):  # the last stop is not waited for
                    while self.rig.cloud.paid:
                        await asyncio.sleep(0.01)

    async def open_backend(self, owner_id: str) -> Backend:
        return self.rig.open(owner_id, idle_action=self.idle_action)


class TestCli(TestRest):
    driver = "cli"


class TestRestThrowAway(TestRest):
    idle_action = "delete"


class TestCliThrowAway(TestCli):
    idle_action = "delete"


class TestWithoutNotes(TestRest):
    """A process that lost its notes finds everything by the labels."""

    async def open_backend(self, owner_id: str) -> Backend:
        self.rig.notes.clear()
        return await super().open_backend(owner_id)


class TestThrowAwayWithoutNotes(TestWithoutNotes):
    idle_action = "delete"
