"""The whole life of a machine through the proxy, over HTTP, on the strict fake."""

import asyncio
from pathlib import Path

import pytest

from ollama_proxy.base.errors import BackendError, ConflictError, SpecError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.fly.rig import OWNER, Rig, fly_rig
from tests.fakes.fly.cloud import Timing
from tests.proxy import RunningProxy, generate, lines, running_proxy

pytestmark = pytest.mark.usefixtures("without_pace")
WAIT = {"Prefer": "wait=20"}
LAUNCH, NEXT = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")


async def ask(proxy: RunningProxy, **headers: str) -> tuple[int, bytes]:
    async with proxy.session.post(
        f"{proxy.url}/api/generate", json=generate(), headers=WAIT | headers
    ) as answer:
        return answer.status, await answer.read()


@pytest.mark.parametrize("idle_action", ["stop", "suspend", "destroy"])
async def test_from_nothing_to_tokens_to_rest_and_again(
    tmp_path: Path, idle_action: str
) -> None:
    timing = Timing(start_s=0.1, stop_s=0.1, suspend_s=0.1, destroy_s=0.1)
    async with fly_rig(tmp_path, timing, is_paced=False) as rig:
        async with running_proxy(
            tmp_path / "p",
            backend=rig.open(idle_action=idle_action),
            clock=rig.clock,
            OLLAMA_MODEL="tiny",
            OLLAMA_PROXY_IDLE_TIMEOUT="500ms",
        ) as proxy:
            async with proxy.session.post(
                f"{proxy.url}/api/generate", json=generate()
            ) as cold:
                assert cold.status == 503
            for _ in range(2):
                status, body = await ask(proxy)
                assert (status, lines(body)[-1]["done"]) == (200, True)
                paid = len(rig.cloud.paid)
                await proxy.until(lambda: proxy.state == "cold", within_s=10.0)
                assert (paid, rig.cloud.paid) == (1, [])
        states = {rig.cloud.state(one) for one in rig.cloud.machines()}
        volumes = rig.cloud.volumes()

    rested = {"stop": "stopped", "suspend": "suspended", "destroy": "destroyed"}
    assert states == {rested[idle_action]}
    assert rig.cloud.made == (2 if idle_action == "destroy" else 1)
    assert len(volumes) == 1
    assert rig.cloud.most_at_once == 1


async def test_a_request_after_a_suspend_takes_no_dead_connection(
    tmp_path: Path,
) -> None:
    async with (
        fly_rig(tmp_path, is_paced=False) as rig,
        running_proxy(
            tmp_path / "p",
            backend=rig.open(idle_action="suspend"),
            OLLAMA_MODEL="tiny",
            OLLAMA_PROXY_IDLE_TIMEOUT="300ms",
        ) as proxy,
    ):
        await ask(proxy)
        before = set(rig.server.edge_connections)
        await proxy.until(lambda: proxy.state == "cold", within_s=10.0)
        silenced = not rig.server.edge_connections
        async with asyncio.timeout(10):
            status, body = await ask(proxy)

    assert before
    assert silenced
    assert (status, lines(body)[-1]["done"]) == (200, True)


async def test_a_volume_that_is_not_to_be_kept_goes_with_its_machine(
    tmp_path: Path,
) -> None:
    async with fly_rig(
        tmp_path, Timing(destroy_s=0.1, detach_s=0.1), is_paced=False
    ) as rig:
        async with running_proxy(
            tmp_path / "p",
            backend=rig.open(idle_action="destroy", keep_volume="false"),
            OLLAMA_MODEL="tiny",
            OLLAMA_PROXY_IDLE_TIMEOUT="300ms",
        ) as proxy:
            status, _ = await ask(proxy)
            await proxy.until(lambda: proxy.state == "cold", within_s=10.0)

        assert status == 200
        assert rig.cloud.volumes() == []


async def test_the_guard_gets_its_token_and_never_the_clients(tmp_path: Path) -> None:
    async with (
        fly_rig(tmp_path, is_paced=False) as rig,
        running_proxy(tmp_path / "p", backend=rig.open(), OLLAMA_MODEL="tiny") as proxy,
    ):
        status, _ = await ask(proxy, Authorization="Bearer sk-of-the-client")
        (guest,) = rig.guests.inside.values()

        assert status == 200
        assert guest.strangers == 0
        assert len(guest.machine.environment["GUARD_TOKEN"]) >= 43


async def test_what_a_machine_is_made_of(rig: Rig) -> None:
    backend = rig.open(size="shared-cpu-2x", memory_mb=2048)
    await backend.start(LAUNCH)
    (machine,) = rig.cloud.machines()
    await backend.stop(LAUNCH)
    await backend.aclose()
    (service,) = machine.config["services"]

    assert machine.name == "ollama-proxy-0"
    assert machine.config["guest"] == {
        "cpu_kind": "shared",
        "cpus": 2,
        "memory_mb": 2048,
    }
    assert machine.config["restart"] == {"policy": "no"}
    assert (service["autostart"], service["autostop"]) == (False, "stop")
    assert service["internal_port"] == 8080
    assert machine.environment["DEAD_MAN"] == "exit"
    assert machine.metadata["ollama_proxy_launch"] == LAUNCH
    assert [volume.size_gb for volume in rig.cloud.volumes()] == [8]


@pytest.mark.parametrize(
    ("access", "ports"), [("public", [443]), ("flycast", [80]), ("6pn", [])]
)
async def test_each_way_to_reach_it_opens_no_more_than_it_needs(
    rig: Rig, access: str, ports: list[int]
) -> None:
    backend = rig.open(access=access)
    await backend.start(LAUNCH)
    (machine,) = rig.cloud.machines()
    await backend.stop(LAUNCH)
    await backend.aclose()
    services = machine.config["services"]

    assert [one["ports"][0]["port"] for one in services] == ports


async def test_two_proxies_on_one_app_never_run_two_machines(tmp_path: Path) -> None:
    async with fly_rig(tmp_path, Timing(lag_s=3600.0), is_paced=False) as rig:
        ours, theirs = rig.open(OWNER), rig.open("somebodyelse")
        results = await asyncio.gather(
            ours.start(LAUNCH), theirs.start(NEXT), return_exceptions=True
        )
        refused = [one for one in results if one is not None]
        most = rig.cloud.most_at_once
        for backend, launch in ((ours, LAUNCH), (theirs, NEXT)):
            await backend.stop(launch)
            await backend.aclose()

    assert [type(one) for one in refused] == [SpecError]
    assert "an app of its own" in str(refused[0])
    assert (rig.cloud.made, most) == (1, 1)


async def test_an_empty_list_makes_no_second_machine(rig: Rig) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    await backend.aclose()
    rig.notes.clear()
    rig.server.script["Machines_list"] = ["empty"] * 3
    again = rig.open()
    with pytest.raises(ConflictError):
        await again.start(NEXT)
    rig.server.script.clear()
    for _ in range(3):
        try:
            await again.start(NEXT)
        except BackendError:
            await asyncio.sleep(0.05)
    most = rig.cloud.most_at_once
    await again.stop(NEXT)
    await again.aclose()

    assert most == 1


async def test_a_machine_at_rest_takes_over_new_settings(rig: Rig) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    await backend.renew(LAUNCH, serves=True)
    await backend.stop(LAUNCH)
    assert (await backend.inspect(LAUNCH)).phase is Phase.GONE
    await backend.aclose()
    larger = rig.open(size="shared-cpu-2x")
    await larger.start(NEXT)
    (machine,) = rig.cloud.machines()
    await larger.stop(NEXT)
    await larger.aclose()

    assert machine.config["guest"]["memory_mb"] == 4096
    assert machine.metadata["ollama_proxy_launch"] == NEXT
    assert machine.volume == rig.cloud.volumes()[0].id


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
    (machine,) = rig.cloud.machines()
    marked = int(machine.metadata["ollama_proxy_lease"])
    rig.clock.date_ahead_s = 0.0
    await backend.renew(LAUNCH, serves=True)
    renewed = int(machine.metadata["ollama_proxy_lease"])
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert abs(marked - now) > 50 * 365 * 86_400.0
    assert abs(renewed - now - 3600.0) < 60.0


async def test_the_machine_hears_the_proxy_and_its_lease_is_renewed(rig: Rig) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    async with asyncio.timeout(5):
        while (await backend.inspect(LAUNCH)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.05)
    (machine,) = rig.cloud.machines()
    before = int(machine.metadata["ollama_proxy_lease"])
    rig.clock.ahead_s += 2400.0
    await backend.renew(LAUNCH, serves=True)
    after = int(machine.metadata["ollama_proxy_lease"])
    heard = rig.guests.inside[machine.id].heartbeats
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert heard == 1
    assert after - before >= 2399
