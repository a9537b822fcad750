"""Every backend of ours keeps the contract that plug-ins have to keep."""

from ollama_proxy.backends.contract import BackendContract
from ollama_proxy.backends.local import LocalBackend, choose_program
from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Backend
from tests.fakes.cloud import CloudFaults, FakeCloud
from tests.fakes.instance import InProcessBackend


class TestStatic(BackendContract):
    survives = False

    async def open_backend(self, owner_id: str) -> Backend:
        return StaticBackend("http://127.0.0.1:11434")


class TestLocal(BackendContract):
    async def open_backend(self, owner_id: str) -> Backend:
        return LocalBackend(owner_id, choose_program(None, "always"))


class TestInProcess(BackendContract):
    survives = False

    async def open_backend(self, owner_id: str) -> Backend:
        return InProcessBackend()


class TestFakeCloud(BackendContract):
    async def open_backend(self, owner_id: str) -> Backend:
        if owner_id != self.owner_id:
            return FakeCloud()
        self.cloud = getattr(self, "cloud", None) or FakeCloud(
            faults=CloudFaults(boot_s=0.1)
        )
        return self.cloud


def test_the_contract_uses_launch_ids_that_any_cloud_takes_as_a_tag() -> None:
    launch_id = LaunchId("l0123456789abcdef")

    assert launch_id.isalnum()
    assert len(launch_id) <= 20
