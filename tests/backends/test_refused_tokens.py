"""A token refused during a launch is reported within one look, with its setting."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.backends.exoscale.rig import exoscale_rig
from tests.backends.fly.rig import fly_rig
from tests.backends.ovh.rig import ovh_rig
from tests.fakes.ovh.server import CALL_TOKEN
from tests.proxy import generate, running_proxy


@dataclass(frozen=True)
class Case:
    """A cloud, how its machine is kept coming, how the token goes, what is named."""

    rig: Callable[[Path], "contextlib.AbstractAsyncContextManager[Any]"]
    linger: Callable[[Any], None]
    refuse: Callable[[Any], None]
    names: str


def slow(name: str) -> Callable[[Any], None]:
    return lambda rig: setattr(rig.cloud.timing, name, 3600.0)


def refused(call: str, status: str) -> Callable[[Any], None]:
    return lambda rig: rig.server.always.update({call: status})


def by_gateway(rig: Any) -> None:
    rig.server.knows_tokens = False


def nothing(_rig: Any) -> None:
    """Leave all as it is."""


def with_command(folder: Path) -> "contextlib.AbstractAsyncContextManager[Any]":
    return ovh_rig(folder, "cli")


EXOSCALE, FLY = "EXOSCALE_API_KEY", "FLY_API_TOKEN"
CASES = {
    "OVH, 401": Case(ovh_rig, slow("scale_s"), refused("get", "401"), "OVH_AI_TOKEN"),
    "OVH, 403": Case(ovh_rig, slow("scale_s"), refused("get", "403"), "OVH_AI_TOKEN"),
    "OVH, by the command": Case(
        with_command, slow("scale_s"), refused("get", "401"), "OVH_AI_USERNAME"
    ),
    "OVH, by the gateway": Case(ovh_rig, by_gateway, nothing, "OVH_AI_TOKEN"),
    "OVH, by the gateway, of a call token": Case(
        with_command, by_gateway, nothing, "OVH_AI_CALL_TOKEN"
    ),
    "Exoscale, 401": Case(
        exoscale_rig, slow("boot_s"), refused("get-instance", "401"), EXOSCALE
    ),
    "Exoscale, 403": Case(
        exoscale_rig, slow("boot_s"), refused("get-instance", "403"), EXOSCALE
    ),
    "Fly, 401": Case(fly_rig, slow("start_s"), refused("Machines_show", "401"), FLY),
    "Fly, 403": Case(fly_rig, slow("start_s"), refused("Machines_show", "403"), FLY),
}


@contextlib.asynccontextmanager
async def waiting(case: Case, folder: Path) -> AsyncIterator[Any]:
    """Run a proxy whose launch does not get further; clear up afterwards."""
    async with case.rig(folder) as rig:
        usual = rig.cloud.timing
        rig.cloud.timing = type(usual)()
        case.linger(rig)
        async with running_proxy(
            folder / "proxy", backend=rig.open(), clock=rig.clock, OLLAMA_MODEL="tiny"
        ) as proxy:
            await proxy.parts.pool.wake()
            await proxy.until(lambda: bool(rig.cloud.paid), within_s=10.0)
            case.refuse(rig)
            try:
                yield proxy
            finally:
                rig.server.always.clear()
                rig.cloud.timing = usual
                proxy.parts.pool.stop()
                await proxy.until(lambda: not rig.cloud.paid, within_s=15.0)


@pytest.mark.parametrize("name", CASES)
async def test_a_token_that_is_refused_in_mid_launch_is_told_with_its_setting(
    tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    async with waiting(case, tmp_path) as proxy:
        controller = proxy.parts.pool.controllers[0]
        await proxy.until(lambda: controller.record.progress.needs_person, 10.0)
        async with proxy.session.get(f"{proxy.url}/status") as answer:
            told = await answer.json()
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate()
        ) as answer:
            status, words = answer.status, await answer.text()

    assert case.names in told["error"]
    assert (status, case.names in words) == (503, True)
    assert CALL_TOKEN not in words
