"""The whole life of an instance through the proxy, over HTTP, on the strict fake."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from ollama_proxy.simulator.server import Manners
from tests.backends.exoscale.rig import Rig, exoscale_rig
from tests.fakes.exoscale.cloud import Timing
from tests.proxy import RunningProxy, generate, lines, running_proxy

WAIT = {"Prefer": "wait=20"}
LAUNCH = LaunchId("l0123456789abcdef")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    timing = Timing(operation_s=0.02, boot_s=0.1, address_s=0.05, leave_s=0.1)
    async with exoscale_rig(tmp_path, timing) as made:
        made.guests.stages = ["guard", "driver", "docker", "ollama", "ready"]
        yield made


@pytest.fixture
async def proxy(rig: Rig, tmp_path: Path) -> AsyncIterator[RunningProxy]:
    async with running_proxy(
        tmp_path / "proxy",
        backend=rig.open(),
        clock=rig.clock,
        OLLAMA_MODEL="tiny",
        OLLAMA_PROXY_IDLE_TIMEOUT="1s",
    ) as running:
        yield running


async def test_from_nothing_to_tokens_to_nothing(rig: Rig, proxy: RunningProxy) -> None:
    url = f"{proxy.url}/api/generate"
    async with proxy.session.post(url, json=generate()) as cold:
        assert cold.status == 503
    seen = set()
    while proxy.state == "starting":
        seen.add((await proxy.status())["detail"])
        await asyncio.sleep(0.01)
    paid = len(rig.cloud.paid)
    async with proxy.session.post(url, json=generate()) as answer:
        said = lines(await answer.read())
    await proxy.until(lambda: proxy.state == "cold")

    assert {"setting up driver", "setting up docker", "setting up ollama"} <= seen
    assert paid == 1
    assert said[-1]["done"]
    assert rig.cloud.bought == 1
    assert rig.cloud.paid == []


async def test_only_the_proxys_own_address_may_connect(
    rig: Rig, proxy: RunningProxy
) -> None:
    await proxy.wake()
    (group,) = rig.cloud.groups.values()
    (instance,) = rig.cloud.paid

    assert [rule["network"] for rule in group["rules"]] == ["198.51.100.7/32"]
    assert instance.body["security-groups"] == [{"id": group["id"]}]


async def test_the_instance_hears_the_proxy_and_its_lease_is_renewed(rig: Rig) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    while (await backend.inspect(LAUNCH)).phase is not Phase.RUNNING:
        await asyncio.sleep(0.01)
    (instance,) = rig.cloud.paid
    before = dict(instance.labels)
    rig.clock.ahead_s += 2400.0
    await backend.renew(LAUNCH, serves=True)
    after = dict(instance.labels)
    heard = rig.guests.inside[instance.id].heartbeats
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert heard == 1
    assert int(after["lease"][1:]) - int(before["lease"][1:]) >= 2399
    assert after | {"lease": ""} == before | {"lease": ""}


@pytest.mark.parametrize("years", [-56, 73])
async def test_a_lease_that_was_marked_in_a_wrong_year_is_marked_anew(
    rig: Rig, years: int
) -> None:
    backend, now = rig.open(), rig.clock.wall()
    rig.clock.date_ahead_s = years * 365 * 86_400.0
    await backend.start(LAUNCH)
    async with asyncio.timeout(10):
        while (await backend.inspect(LAUNCH)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.01)
    (instance,) = rig.cloud.paid
    marked = int(instance.labels["lease"][1:])
    rig.clock.date_ahead_s = 0.0
    await backend.renew(LAUNCH, serves=True)
    renewed = int(instance.labels["lease"][1:])
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert abs(marked - now) > 50 * 365 * 86_400.0
    assert abs(renewed - now - 3600.0) < 60.0


async def test_the_clients_own_key_never_reaches_the_instance(
    rig: Rig, tmp_path: Path
) -> None:
    rig.guests.manners = Manners(rate=100.0)
    async with running_proxy(
        tmp_path / "p", backend=rig.open(), OLLAMA_MODEL="tiny"
    ) as proxy:
        async with proxy.session.post(
            f"{proxy.url}/api/generate",
            json=generate(),
            headers=WAIT | {"Authorization": "Bearer sk-of-the-client"},
        ) as answer:
            assert answer.status == 200
        (guest,) = rig.guests.inside.values()

        assert guest.strangers == 0


async def test_a_stranger_on_the_address_never_sees_a_prompt(
    rig: Rig, proxy: RunningProxy
) -> None:
    await proxy.wake()
    (instance,) = rig.cloud.paid
    await rig.guests.usurp(instance.id)
    async with proxy.session.post(
        f"{proxy.url}/api/generate", json=generate(prompt="a secret")
    ) as answer:
        status = answer.status

    assert status == 503
    assert rig.guests.told_to_strangers == []


@pytest.mark.skipif(shutil.which("caddy") is None, reason="there is no `caddy`")
async def test_the_whole_cycle_behind_a_real_caddy(tmp_path: Path) -> None:
    timing = Timing(operation_s=0.02, boot_s=0.1, leave_s=0.1)
    async with exoscale_rig(tmp_path, timing) as rig:
        rig.guests.caddy = tmp_path / "inside"
        async with running_proxy(
            tmp_path / "proxy",
            backend=rig.open(),
            OLLAMA_MODEL="new",
            OLLAMA_PROXY_IDLE_TIMEOUT="500ms",
        ) as proxy:
            url = f"{proxy.url}/api/generate"
            async with proxy.session.post(url, json=generate(model="new")) as cold:
                assert cold.status == 503
            async with proxy.session.post(
                url, json=generate(model="new"), headers=WAIT
            ) as answer:
                said = lines(await answer.read())
            paid = len(rig.cloud.paid)
            await proxy.until(lambda: proxy.state == "cold")

        assert said[-1]["done"]
        assert (paid, rig.cloud.bought, rig.cloud.paid) == (1, 1, [])


async def test_progress_moves_with_the_steps_and_never_back(
    rig: Rig, tmp_path: Path
) -> None:
    rig.guests.stages = [
        *("booting", "guard", "driver", "ollama", "driver", "model", "ready"),
    ]
    told: list[float] = []
    async with running_proxy(
        tmp_path / "proxy", backend=rig.open(), clock=rig.clock, OLLAMA_MODEL="tiny"
    ) as proxy:
        await proxy.parts.pool.wake()
        while proxy.state != "ready":
            status = await proxy.status()
            if status["progress"] is not None:
                told.append(status["progress"])
            await asyncio.sleep(0.005)
        proxy.parts.pool.stop()
        await proxy.until(lambda: not rig.cloud.paid, within_s=10.0)

    assert told == sorted(told)
    assert len(set(told) & {0.115, 0.145, 0.175, 0.31, 0.355}) >= 4
