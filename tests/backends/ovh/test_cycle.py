"""The whole life of an app through the proxy, over HTTP, on the strict fake."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ollama_proxy.core.http.headers import GUARD_TOKEN
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from ollama_proxy.simulator.server import Manners
from tests.backends.ovh.rig import Rig
from tests.fakes.ovh.cloud import Timing
from tests.fakes.ovh.server import AI_TOKEN, CALL_TOKEN
from tests.proxy import HURRIED, RunningProxy, generate, lines, running_proxy

WAIT = {"Prefer": "wait=60"}
IDLE_S = 3600.0
LAUNCH = LaunchId("l0123456789abcdef")


@pytest.fixture
async def proxy(rig: Rig, tmp_path: Path) -> AsyncIterator[RunningProxy]:
    """Run a proxy; nothing is paid for in the end."""
    async with begun(rig, tmp_path) as running:
        yield running
        await running.stop()
    assert rig.cloud.paid == []


@asynccontextmanager
async def begun(rig: Rig, folder: Path) -> AsyncIterator[RunningProxy]:
    """Run a proxy; its app idles for an hour, which only `Rig.clock` lets pass."""
    rig.cloud.timing = Timing(0.1, 0.1, 0.1, stop_s=0.1)
    async with running_proxy(
        folder / "proxy",
        backend=rig.open(),
        clock=rig.clock,
        timing=HURRIED,
        OLLAMA_MODEL="tiny",
        OLLAMA_PROXY_IDLE_TIMEOUT="1h",
    ) as running:
        yield running


async def test_from_nothing_to_tokens_to_nothing_and_again(
    rig: Rig, tmp_path: Path
) -> None:
    async with begun(rig, tmp_path) as proxy:
        url = f"{proxy.url}/api/generate"
        async with proxy.session.post(url, json=generate()) as cold:
            assert cold.status == 503
        said = []
        for _ in range(2):
            async with proxy.session.post(url, json=generate(), headers=WAIT) as answer:
                paid = len(rig.cloud.paid)
                said.append(lines(await answer.read())[-1])
            rig.clock.ahead_s += IDLE_S
            await proxy.until(lambda: proxy.state == "cold")

            assert paid == 1
            assert rig.cloud.paid == []
    assert [line["done"] for line in said] == [True, True]
    assert (rig.cloud.made, rig.cloud.starts) == (1, 1)


async def test_an_app_per_launch_is_deleted(rig: Rig, tmp_path: Path) -> None:
    async with running_proxy(
        tmp_path / "p",
        backend=rig.open(idle_action="delete"),
        OLLAMA_MODEL="tiny",
        OLLAMA_PROXY_IDLE_TIMEOUT="200ms",
    ) as proxy:
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers=WAIT
        ) as answer:
            status = answer.status
        await proxy.until(lambda: proxy.state == "cold")

    assert status == 200
    assert rig.server.calls.count("create") == 1
    assert [app for app in rig.cloud.apps.values() if rig.cloud.is_there(app)] == []


async def test_the_app_is_called_with_the_ai_token_and_never_the_clients(
    rig: Rig, proxy: RunningProxy
) -> None:
    async with proxy.session.post(
        f"{proxy.url}/api/generate",
        json=generate(),
        headers=WAIT | {"Authorization": "Bearer sk-of-the-client", GUARD_TOKEN: "x"},
    ) as answer:
        headers = set(answer.headers)
        body = await answer.read()
    told = {one.get("Authorization") for one in rig.server.told_apps}
    token = CALL_TOKEN if rig.driver == "cli" else AI_TOKEN

    assert told == {f"Bearer {token}"}
    assert "x" not in {one.get(GUARD_TOKEN) for one in rig.server.told_apps}
    assert not any(name.startswith("X-Ollama-Proxy-Guard") for name in headers)
    assert token.encode() not in body


async def test_what_the_gateway_says_before_it_is_ready_is_still_provisioning(
    rig: Rig, proxy: RunningProxy
) -> None:
    rig.server.gateway = [401] * 100_000
    async with proxy.session.post(f"{proxy.url}/api/generate", json=generate()) as cold:
        assert cold.status == 503
    async with asyncio.timeout(60.0):
        while "answers 401" not in ((await proxy.status())["detail"] or ""):
            assert proxy.state == "starting"
            await asyncio.sleep(0.005)
    rig.server.gateway = [401, 502, 503, 504] * 3
    await proxy.until(lambda: proxy.state != "starting")

    assert proxy.state == "ready"
    assert rig.server.gateway == []


@pytest.mark.parametrize("status", [401, 404, 502, 503])
async def test_a_gateway_that_answers_for_a_ready_app_is_not_ollama(
    rig: Rig, proxy: RunningProxy, status: int
) -> None:
    await proxy.wake()
    rig.server.gateway_by_path["/api/generate"] = status
    async with proxy.session.post(
        f"{proxy.url}/api/generate", json=generate()
    ) as answer:
        body = await answer.json()

    assert answer.status == 503
    assert f"gateway before the instance answered '{status}" in body["error"]


async def test_a_gateway_that_cuts_a_stream_is_told_in_the_stream(
    rig: Rig, tmp_path: Path
) -> None:
    rig.guests.manners = Manners(rate=20.0)
    async with running_proxy(
        tmp_path / "p", backend=rig.open(), OLLAMA_MODEL="tiny"
    ) as proxy:
        await proxy.wake()
        rig.server.cut_after_s = 0.3
        body = generate(options={"num_predict": 100})
        async with proxy.session.post(f"{proxy.url}/api/generate", json=body) as answer:
            said = lines(await answer.read())

    assert len(said) > 2
    assert not any(line.get("done") for line in said)
    assert "lost in the middle" in said[-1]["error"]


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
    (app,) = rig.cloud.paid
    marked = int(app.labels["ollama-proxy-lease"])
    rig.clock.date_ahead_s = 0.0
    await backend.renew(LAUNCH, serves=True)
    renewed = int(app.labels["ollama-proxy-lease"])
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert abs(marked - now) > 50 * 365 * 86_400.0
    assert abs(renewed - now - 3600.0) < 60.0


async def test_the_app_hears_the_proxy_and_its_lease_is_renewed(rig: Rig) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    async with asyncio.timeout(10):
        while (await backend.inspect(LAUNCH)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.01)
    (app,) = rig.cloud.paid
    before = dict(app.labels)
    rig.clock.ahead_s += 2400.0
    await backend.renew(LAUNCH, serves=True)
    after = dict(app.labels)
    heard = rig.guests.inside[app.id].heartbeats
    await backend.stop(LAUNCH)
    await backend.aclose()

    lease = "ollama-proxy-lease"
    assert heard == 1
    assert int(after[lease]) - int(before[lease]) >= 2399
    assert after | {lease: ""} == before | {lease: ""}


async def test_the_guards_token_is_hidden_or_not_used(rig: Rig) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    (app,) = rig.cloud.paid
    printed = " ".join(word for words in rig.command.argv for word in words)
    await backend.stop(LAUNCH)
    await backend.aclose()

    if rig.driver == "cli":
        assert app.environment["GUARD"] == "platform"
        assert "GUARD_TOKEN" not in printed
    else:
        assert len(app.environment["GUARD_TOKEN"]) >= 43
    assert app.environment["DEAD_MAN_S"] == "1200"


async def test_an_app_that_is_scaled_to_zero_before_it_served_is_woken_by_our_looks(
    rig: Rig,
) -> None:
    rig.server.wakes_standby = True
    backend = rig.open()
    await backend.start(LAUNCH)
    (app,) = rig.cloud.apps.values()
    app.forced = "STANDBY"
    costs_while_asleep = list(rig.cloud.paid)
    async with asyncio.timeout(20):
        while (await backend.inspect(LAUNCH)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.01)
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert costs_while_asleep == []
    assert rig.cloud.made == 1
    assert rig.cloud.paid == []


async def test_an_app_that_stays_at_zero_costs_nothing_and_is_stopped(rig: Rig) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    (app,) = rig.cloud.apps.values()
    app.forced = "STANDBY"
    seen = await backend.inspect(LAUNCH)
    costs = list(rig.cloud.paid)
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert seen.phase is Phase.PENDING
    assert (costs, rig.cloud.paid) == ([], [])
