"""The Exoscale backend keeps the contract, on the strict fake."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.backends.contract import BackendContract
from ollama_proxy.fleet.backend import Backend
from tests.backends.exoscale.rig import Rig, exoscale_rig
from tests.fakes.exoscale.cloud import Timing


class TestExoscale(BackendContract):
    rig: Rig

    @pytest.fixture(autouse=True)
    async def with_a_cloud(self) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            timing = Timing(operation_s=0.02, boot_s=0.05, leave_s=0.05)
            async with exoscale_rig(Path(folder), timing) as self.rig:
                yield
                assert not self.rig.cloud.paid

    async def open_backend(self, owner_id: str) -> Backend:
        return self.rig.open(owner_id)


class TestExoscaleWithoutNotes(TestExoscale):
    """A process that lost its notes finds everything by the labels."""

    async def open_backend(self, owner_id: str) -> Backend:
        self.rig.notes.clear()
        return self.rig.open(owner_id)
