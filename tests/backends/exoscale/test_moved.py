"""A proxy whose address changes is allowed again, and no address longer than needed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.backends.exoscale.backend import ExoscaleBackend
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Observation, Phase
from tests.backends.exoscale.rig import Rig
from tests.fakes.exoscale.server import KEY
from tests.proxy import generate, running_proxy

FIRST = LaunchId("l0123456789abcdef")
OLD, NEW = "198.51.100.7", "203.0.113.99"


@pytest.fixture
async def backend(rig: Rig) -> AsyncIterator[ExoscaleBackend]:
    opened = rig.open()
    yield opened
    await opened.aclose()


def networks(rig: Rig) -> list[str]:
    (group,) = rig.cloud.groups.values()
    return sorted(str(rule.get("network")) for rule in group["rules"])


async def inspected(
    rig: Rig, backend: ExoscaleBackend, seconds: float
) -> list[Observation]:
    """Look every five seconds of the rig's time."""
    seen = []
    for _ in range(int(seconds // 5.0) + 1):
        seen.append(await backend.inspect(FIRST))
        rig.clock.ahead_s += 5.0
        await asyncio.sleep(0.03)  # the guests follow
    return seen


async def served(rig: Rig, backend: ExoscaleBackend) -> None:
    await backend.start(FIRST)
    await asyncio.sleep(0.05)
    seen = await inspected(rig, backend, 60.0)
    assert seen[-1].phase is Phase.RUNNING
    assert networks(rig) == [f"{OLD}/32"]


@pytest.mark.parametrize("lag_s", [0.0, 15.0, 60.0])
async def test_while_it_serves_a_new_address_is_let_in_and_the_old_one_goes(
    rig: Rig, backend: ExoscaleBackend, lag_s: float
) -> None:
    await served(rig, backend)
    rig.cloud.event_lag_s = lag_s
    rig.clock.ahead_s += 3600.0
    await backend.inspect(FIRST)
    rig.cloud.source_ip = NEW
    await asyncio.sleep(0.05)
    locked_out = await inspected(rig, backend, lag_s + 20.0)
    both = networks(rig)
    after = await inspected(rig, backend, 60.0)

    assert {one.phase for one in locked_out + after} == {Phase.RUNNING}
    assert "address" in locked_out[0].problem
    assert f"{NEW}/32" in both
    assert networks(rig) == [f"{NEW}/32"]
    assert (after[-1].problem, after[-1].notice) == ("", "")


async def test_while_it_boots_a_new_address_is_let_in(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await backend.start(FIRST)
    rig.cloud.source_ip = NEW
    await asyncio.sleep(0.05)
    locked_out = await inspected(rig, backend, 115.0)
    after = await inspected(rig, backend, 60.0)

    assert locked_out[0].phase is Phase.PENDING
    assert any(f"lets in our address {NEW}/32" in one.problem for one in locked_out)
    assert after[-1].phase is Phase.RUNNING
    assert networks(rig) == [f"{NEW}/32"]


async def test_so_it_is_though_the_log_trails(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    rig.cloud.event_lag_s = 45.0
    await backend.start(FIRST)
    rig.cloud.source_ip = NEW
    await asyncio.sleep(0.05)
    await inspected(rig, backend, 300.0)
    seen = await backend.inspect(FIRST)

    assert (seen.phase, seen.problem) == (Phase.RUNNING, "")
    assert networks(rig) == [f"{NEW}/32"]


async def test_a_proxy_keeps_the_instance_that_it_cannot_reach_for_a_while(
    rig: Rig, tmp_path: Path
) -> None:
    async with running_proxy(
        tmp_path / "proxy",
        timing=Timing(retry_pause_s=0.02),
        backend=rig.open(),
        clock=rig.clock,
        OLLAMA_MODEL="tiny",
        OLLAMA_PROXY_IDLE_TIMEOUT="5h",
    ) as proxy:
        await proxy.wake()
        rig.clock.ahead_s += 3600.0
        rig.cloud.event_lag_s = 30.0
        rig.cloud.source_ip = NEW
        await asyncio.sleep(0.05)
        proxy.parts.pool.check_now()
        await proxy.until(lambda: bool(proxy.parts.pool.controllers[0].problem))
        told = await proxy.status()
        while networks(rig) != [f"{NEW}/32"]:
            rig.clock.ahead_s += 1.0
            await asyncio.sleep(0.02)
            proxy.parts.pool.check_now()
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate()
        ) as answer:
            status = answer.status
        proxy.parts.pool.stop()
        await proxy.until(lambda: not rig.cloud.paid)

    assert told["instance_status"] == "ready"
    assert "our address has changed" in told["detail"]
    assert status == 200
    assert rig.cloud.bought == 1


async def test_a_restart_at_a_new_address_reaches_what_it_adopts(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await served(rig, backend)
    rig.cloud.source_ip = NEW
    rig.clock.ahead_s += 90_000.0
    again = rig.open()
    await asyncio.sleep(0.05)
    await inspected(rig, again, 120.0)
    seen = await inspected(rig, again, 60.0)
    await again.aclose()

    assert seen[-1].phase is Phase.RUNNING
    assert networks(rig) == [f"{NEW}/32"]


async def test_an_address_that_comes_back_is_let_in_again(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await served(rig, backend)
    for source_ip in (NEW, OLD, NEW):
        rig.cloud.source_ip = source_ip
        await asyncio.sleep(0.05)
        seen = await inspected(rig, backend, 180.0)
        assert seen[-1].phase is Phase.RUNNING
        assert not seen[-1].problem
        assert f"{source_ip}/32" in networks(rig)
    assert len(networks(rig)) <= 2


@pytest.mark.parametrize("lag_s", [30.0, 90.0, 600.0])
async def test_a_first_launch_is_open_until_the_log_tells_our_address(
    rig: Rig, backend: ExoscaleBackend, lag_s: float
) -> None:
    rig.cloud.event_lag_s = lag_s
    await backend.start(FIRST)
    bought_with = networks(rig)
    await asyncio.sleep(0.05)
    open_wide = await inspected(rig, backend, 15.0)
    wide = networks(rig)
    await inspected(rig, backend, lag_s + 60.0)
    seen = await backend.inspect(FIRST)

    assert bought_with == []
    assert wide == ["0.0.0.0/0"]
    assert open_wide[-1].phase is Phase.RUNNING
    assert "everybody may connect" in open_wide[-1].notice
    assert networks(rig) == [f"{OLD}/32"]
    assert seen.notice == ""


async def test_a_log_that_never_tells_leaves_it_open_and_says_so(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    rig.cloud.event_lag_s = float("inf")
    await backend.start(FIRST)
    await asyncio.sleep(0.05)
    seen = await inspected(rig, backend, 600.0)

    assert networks(rig) == ["0.0.0.0/0"]
    assert seen[-1].phase is Phase.RUNNING
    assert "EXOSCALE_ALLOWED_CIDR" in seen[-1].notice
    assert rig.server.calls.count("list-events") < 40


async def test_a_restart_narrows_what_the_process_before_left_open(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    rig.cloud.event_lag_s = 300.0
    await backend.start(FIRST)
    await asyncio.sleep(0.05)
    await inspected(rig, backend, 15.0)
    rig.clock.ahead_s += 300.0
    again = rig.open()
    await inspected(rig, again, 30.0)
    await again.aclose()

    assert networks(rig) == [f"{OLD}/32"]


async def test_another_user_of_the_key_neither_gets_in_nor_locks_us_out(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await backend.start(FIRST)
    for second in range(100):
        rig.clock.ahead_s += 0.001 * second
        rig.cloud.source_ip = "192.0.2.66"
        rig.cloud.note("delete-template", "de-fra-1", KEY)
        rig.cloud.source_ip = OLD
    await asyncio.sleep(0.05)
    seen = await inspected(rig, backend, 60.0)

    assert seen[-1].phase is Phase.RUNNING
    assert networks(rig) == [f"{OLD}/32"]


async def test_with_networks_of_a_person_nothing_of_this_happens(rig: Rig) -> None:
    backend = rig.open(allowed_cidr="192.0.2.0/24")
    await backend.start(FIRST)
    await asyncio.sleep(0.05)
    seen = await inspected(rig, backend, 120.0)
    await backend.aclose()

    assert seen[-1].phase is Phase.PENDING
    assert networks(rig) == ["192.0.2.0/24"]
    assert "list-events" not in rig.server.calls


async def test_an_instance_that_is_silent_for_another_reason_is_excused_once(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await served(rig, backend)
    (guest,) = rig.guests.inside.values()
    guest.new_site, site = None, guest.site
    assert site is not None
    await site.stop()
    seen = await inspected(rig, backend, 60.0)

    assert sum(bool(one.problem) for one in seen) <= 2
    assert networks(rig) == [f"{OLD}/32"]


async def test_what_serves_and_is_reached_costs_no_looks_at_the_rules(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await served(rig, backend)
    rig.server.calls.clear()
    await inspected(rig, backend, 300.0)

    assert set(rig.server.calls) == {"get-instance"}


@pytest.mark.parametrize("operation", ["list-events", "get-security-group"])
@pytest.mark.parametrize("fault", ["403", "500", "lost-before"])
async def test_rules_that_cannot_be_seen_do_not_hide_the_instance(
    rig: Rig, backend: ExoscaleBackend, operation: str, fault: str
) -> None:
    await served(rig, backend)
    rig.server.always[operation] = fault
    rig.cloud.source_ip = NEW
    await asyncio.sleep(0.05)
    seen = await inspected(rig, backend, 30.0)
    rig.server.always.clear()
    await inspected(rig, backend, 180.0)
    after = await backend.inspect(FIRST)

    assert {one.phase for one in seen} == {Phase.RUNNING}
    assert after.problem == ""
    assert networks(rig) == [f"{NEW}/32"]


@pytest.mark.parametrize(
    "operation", ["add-rule-to-security-group", "delete-rule-from-security-group"]
)
@pytest.mark.parametrize("fault", ["500", "lost-after", "lost-before"])
async def test_a_change_of_the_rules_that_is_cut_short_is_mended(
    rig: Rig, backend: ExoscaleBackend, operation: str, fault: str
) -> None:
    await served(rig, backend)
    rig.server.script[operation] = [fault, fault]
    rig.cloud.source_ip = NEW
    await asyncio.sleep(0.05)
    await inspected(rig, backend, 240.0)

    assert networks(rig) == [f"{NEW}/32"]


async def test_a_rule_that_is_there_twice_is_shut_twice(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await backend.start(FIRST)
    (group,) = rig.cloud.groups.values()
    meant = dict(group["rules"][0])
    for number in range(2):
        group["rules"].append(meant | {"id": f"r{number}", "network": "0.0.0.0/0"})
    await asyncio.sleep(0.05)
    await inspected(rig, backend, 90.0)

    assert networks(rig) == [f"{OLD}/32"]


async def test_networks_that_are_set_later_hold_for_what_runs_already(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    rig.server.always["list-events"] = "403"
    await backend.start(FIRST)
    await asyncio.sleep(0.05)
    await inspected(rig, backend, 60.0)
    before = networks(rig)
    again = rig.open(allowed_cidr=f"{OLD}/32")
    seen = await inspected(rig, again, 60.0)
    await again.aclose()

    assert before == ["0.0.0.0/0"]
    assert seen[-1].phase is Phase.RUNNING
    assert networks(rig) == [f"{OLD}/32"]
