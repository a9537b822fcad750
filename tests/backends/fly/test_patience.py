"""Calls that Fly refuses for their number are waited for in place, within bounds."""

import asyncio
import json
from pathlib import Path

import pytest

from ollama_proxy.base.errors import BackendError, RateLimitError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.sweeper import sweep
from ollama_proxy.store.memory import MemoryStore
from tests.backends.fly.rig import Rig, fly_rig
from tests.proxy import generate, running_proxy

LAUNCH, NEXT = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")

pytestmark = pytest.mark.usefixtures("without_pace")


async def test_delete_and_sweep_wait_as_long_as_they_are_told(rig: Rig) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    rig.server.retry_after = "7"
    for name in ("Machines_list", "Volumes_list", "Volume_delete", "Machines_delete"):
        rig.server.script[name] = ["429", "429"]
    await sweep(backend, MemoryStore())
    async with asyncio.timeout(20):
        told = [step async for step in backend.remove()]
    await backend.aclose()

    assert told[-1] == "nothing of this deployment is left"
    assert set(rig.slept) == {7.0}
    assert rig.cloud.volumes() == []
    assert rig.cloud.paid == []


async def test_a_limit_that_never_ends_is_told_after_a_while(rig: Rig) -> None:
    backend = rig.open()
    rig.server.always["Machines_list"] = "429"
    with pytest.raises(RateLimitError, match="429"):
        await backend.owned()
    await backend.aclose()

    assert 30.0 < sum(rig.slept) <= 75.0


async def test_a_call_goes_on_where_it_was_refused(rig: Rig) -> None:
    rig.server.script["Machines_start"] = ["429", "429"]
    backend = rig.open()
    await backend.start(LAUNCH)
    await backend.aclose()
    calls = rig.server.calls

    assert calls.count("Machines_create") == calls.count("Volumes_create") == 1
    assert calls.count("Machines_start") == 3


@pytest.mark.parametrize("refusal", ["401", "429"])
async def test_a_proxy_that_was_refused_leaves_nothing_to_be_stopped(
    rig: Rig, refusal: str
) -> None:
    theirs, ours = rig.open("somebodyelse"), rig.open()
    await theirs.start(LAUNCH)
    rig.server.script["Machines_list"] = ["empty"]
    with pytest.raises(BackendError, match="another deployment"):
        await ours.start(NEXT)
    rig.server.always["Machines_list"] = refusal
    calls = len(rig.server.calls)
    await ours.stop(NEXT)
    seen = await ours.inspect(NEXT)
    asked = rig.server.calls[calls:]
    for backend in (theirs, ours):
        await backend.aclose()

    assert (seen.phase.name, asked) == ("GONE", [])


async def test_a_start_that_is_refused_does_not_say_that_something_may_cost_money(
    tmp_path: Path,
) -> None:
    async with fly_rig(tmp_path, is_paced=False) as rig:
        rig.server.always["Machines_list"] = "401"
        async with running_proxy(
            tmp_path / "p", backend=rig.open(), OLLAMA_MODEL="tiny"
        ) as proxy:
            async with proxy.session.post(
                f"{proxy.url}/api/generate", json=generate()
            ) as answer:
                assert answer.status == 503
            await proxy.until(lambda: proxy.state == "cool-down", within_s=5.0)
            async with proxy.session.get(f"{proxy.url}/status") as answer:
                status = await answer.json()

    del status["access"]  # it says what open access may cost
    told = json.dumps(status)
    assert "FLY_API_TOKEN" in told
    assert "cost money" not in told
