"""What the settings of an offer say to its machines."""

from pathlib import Path

from ollama_proxy.core.lifecycle.record import LaunchId
from tests.backends.fly.rig import fly_rig

FIRST, SECOND = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")


async def test_the_variables_of_an_offer_reach_ollama_and_change_with_it(
    tmp_path: Path,
) -> None:
    async with fly_rig(tmp_path, is_paced=False) as rig:
        rig.environment = {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KEEP_ALIVE": "30m"}
        backend = rig.open()
        await backend.start(FIRST)
        (machine,) = rig.cloud.paid
        first, spec = machine.environment, machine.metadata["ollama_proxy_spec"]
        await backend.stop(FIRST)
        await backend.aclose()
        rig.environment = {"OLLAMA_NUM_PARALLEL": "2"}
        backend = rig.open()
        changed = backend.traits.spec
        await backend.stop(FIRST)
        await backend.aclose()

    assert (
        first.items()
        >= {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KEEP_ALIVE": "30m"}.items()
    )
    assert changed != spec
