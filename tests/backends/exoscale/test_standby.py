"""Instances that are stopped for idleness, and started again by the next launch."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.backends.exoscale.backend import ExoscaleBackend
from ollama_proxy.backends.exoscale.instances import read_instances
from ollama_proxy.base.errors import BackendError, StoreError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.driving import started, until
from tests.backends.exoscale.rig import Rig, exoscale_rig
from tests.fakes.exoscale.cloud import Timing
from tests.proxy import ORDERS, generate, lines, running_proxy

FIRST, SECOND = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")
WAIT = {"Prefer": "wait=20"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    timing = Timing(operation_s=0.02, boot_s=0.05, leave_s=0.05)
    async with exoscale_rig(tmp_path, timing) as made:
        yield made
        assert not made.cloud.paid


@pytest.fixture
async def backend(rig: Rig) -> AsyncIterator[ExoscaleBackend]:
    opened = rig.open(idle_action="stop", disk_price="0.0001")
    yield opened
    await opened.aclose()


async def standby(backend: ExoscaleBackend, launch_id: LaunchId = FIRST) -> None:
    await started(backend, launch_id)
    await until(backend, launch_id, Phase.RUNNING)
    await backend.renew(launch_id, serves=True)
    await until(backend, launch_id, Phase.GONE, stops=True)


async def test_what_served_is_stopped_and_kept(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await standby(backend)
    (instance,) = rig.cloud.instances.values()

    assert rig.cloud.state(instance) == "stopped"
    assert instance.labels["launch"] == "parked"
    assert list(await backend.owned()) == []
    assert backend.prices.parked == 1
    assert backend.prices.parked_per_hour == pytest.approx(0.01)


async def test_what_is_kept_is_listed_with_the_price_of_the_disk_that_it_has(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await standby(backend)
    changed = rig.open(idle_action="stop", disk_price="0.0001", disk_size="400")
    await changed.owned()
    (told,) = await changed.kept()
    prices = changed.prices
    await changed.aclose()
    (instance,) = rig.cloud.instances.values()

    assert prices.parked_per_hour == pytest.approx(0.01)
    assert instance.id in told
    assert "in at-vie-2, a disk of 100 GiB, 0.0100 per hour, kept until 20" in told


async def test_a_disk_that_cannot_be_seen_has_an_unknown_price(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await standby(backend)
    again = rig.open(idle_action="stop", disk_price="0.0001")
    rig.server.always["get-instance"] = "403"
    await again.owned()
    (told,) = await again.kept()
    prices = again.prices
    await again.aclose()

    assert (prices.parked, prices.parked_per_hour) == (1, None)
    assert "a disk of unknown size, price unknown" in told


async def test_what_is_kept_is_deleted_on_order_before_its_time(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await standby(backend)
    stranger = rig.cloud.stranger()
    listed = await backend.release(dry_run=True)
    (instance, _) = rig.cloud.instances.values()
    still = rig.cloud.state(instance)
    deleted = await backend.release(dry_run=False)
    await asyncio.sleep(0.1)

    assert len(listed) == 1
    assert listed == deleted
    assert still == "stopped"
    assert not rig.cloud.exists(instance)
    assert rig.cloud.exists(stranger)
    assert await backend.kept() == []
    assert backend.prices.parked == 0


async def test_what_a_launch_has_is_not_deleted_with_what_is_kept(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await standby(backend)
    await started(backend, SECOND)
    await until(backend, SECOND, Phase.RUNNING)

    assert await backend.release(dry_run=False) == []
    assert len(rig.cloud.paid) == 1
    await until(backend, SECOND, Phase.GONE, stops=True)


async def test_a_running_proxy_lists_and_deletes_what_is_kept(
    rig: Rig, tmp_path: Path
) -> None:
    backend = rig.open(idle_action="stop")
    async with running_proxy(
        tmp_path / "proxy", backend=backend, OLLAMA_MODEL="tiny"
    ) as proxy:
        await proxy.wake()
        kept = backend._journal._records  # what never served is deleted, not kept
        await proxy.until(lambda: any(one.served for one in kept.values()))
        proxy.parts.pool.stop()
        await proxy.until(lambda: proxy.state == "cold")
        told = []
        for query in ("stopped=0", "stopped=1&dry_run=1", "stopped=1"):
            async with proxy.session.post(
                f"{proxy.url}/-/sweep?{query}", headers=ORDERS
            ) as answer:
                told.append(await answer.json())
        await asyncio.sleep(0.1)
    (instance,) = rig.cloud.instances.values()

    assert "stopped instance" in told[0]["kept"][0]
    assert [len(one["swept"]) for one in told] == [0, 1, 1]
    assert told[2]["kept"] == []
    assert not rig.cloud.exists(instance)


async def test_the_next_launch_starts_it_again_and_trusts_its_certificate(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await standby(backend)
    await standby(backend, SECOND)

    assert rig.cloud.bought == 1
    assert "start-instance" in rig.server.calls


async def test_through_the_proxy_a_second_cycle_needs_no_purchase(
    rig: Rig, tmp_path: Path
) -> None:
    async with running_proxy(
        tmp_path / "proxy",
        backend=rig.open(idle_action="stop"),
        OLLAMA_MODEL="tiny",
        OLLAMA_PROXY_IDLE_TIMEOUT="200ms",
    ) as proxy:
        for _ in range(2):
            async with proxy.session.post(
                f"{proxy.url}/api/generate", json=generate(), headers=WAIT
            ) as answer:
                assert lines(await answer.read())[-1]["done"]
            await proxy.until(lambda: proxy.state == "cold")
        status = await proxy.status()

    assert rig.cloud.bought == 1
    assert status["price"] == {
        "per_hour": None,
        "parked": 1,
        "parked_per_hour": None,
    }


@pytest.mark.parametrize(
    ("start_fails", "starts"),
    [
        ("409", 1),
        ("412", 1),
        ("unavailable", 1),
        ("unknown", 1),
        ("fault", 1),
        ("partial", 1),
        ("busy", 3),
        ("500", 3),
        ("503", 3),
    ],
)
async def test_one_that_does_not_start_is_deleted_and_another_is_bought(
    rig: Rig, backend: ExoscaleBackend, start_fails: str, starts: int
) -> None:
    await standby(backend)
    rig.cloud.start_fails = start_fails
    await standby(backend, SECOND)
    states = [rig.cloud.state(one) for one in rig.cloud.instances.values()]

    assert states == ["destroyed", "stopped"]
    assert rig.cloud.bought == 2
    assert rig.server.calls.count("start-instance") == starts


@pytest.mark.parametrize("start_fails", ["busy", "503"])
async def test_a_start_that_fails_for_the_moment_costs_no_purchase(
    rig: Rig, backend: ExoscaleBackend, start_fails: str
) -> None:
    await standby(backend)
    rig.cloud.start_fails = start_fails
    with pytest.raises(BackendError):
        await backend.start(SECOND)
    rig.cloud.start_fails = None
    await standby(backend, SECOND)

    assert rig.cloud.bought == 1


async def test_one_of_another_type_is_left_to_its_time(rig: Rig) -> None:
    before = rig.open(idle_action="stop")
    await standby(before)
    await before.aclose()
    after = rig.open(idle_action="stop", instance_type="standard.small")
    await standby(after, SECOND)
    await after.aclose()

    assert rig.cloud.bought == 2


async def test_what_never_served_is_deleted(rig: Rig, backend: ExoscaleBackend) -> None:
    rig.guests.stages = ["failed:driver"]
    await backend.start(FIRST)
    await until(backend, FIRST, Phase.FAILED)
    seen = await backend.inspect(FIRST)
    await until(backend, FIRST, Phase.GONE, stops=True)
    (instance,) = rig.cloud.instances.values()

    assert seen.reason == "driver"
    assert not rig.cloud.exists(instance)


async def test_what_nobody_needed_for_long_is_swept(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await standby(backend)
    kept = await backend.owned()
    rig.clock.ahead_s += 86_401.0
    over = await backend.owned()
    for launch_id in over:
        await backend.stop(launch_id)
    rig.clock.ahead_s += 1.0
    (instance,) = rig.cloud.instances.values()

    assert (list(kept), len(over)) == ([], 1)
    assert not rig.cloud.exists(instance)


async def test_a_stop_that_is_cut_short_leaves_nothing_that_runs(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await backend.start(FIRST)
    await until(backend, FIRST, Phase.RUNNING)
    await backend.renew(FIRST, serves=True)
    await backend.stop(FIRST)
    again = rig.open(idle_action="stop")
    await until(again, FIRST, Phase.GONE, stops=True)
    await again.aclose()
    (instance,) = rig.cloud.instances.values()

    assert instance.labels["launch"] == "parked"


async def test_if_stopped_ones_are_not_wanted_any_more_they_are_swept(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await standby(backend)
    changed = rig.open(idle_action="destroy")
    over = await changed.owned()
    for launch_id in over:
        await changed.stop(launch_id)
    await changed.aclose()

    assert len(over) == 1


async def test_the_sweep_of_expired_leases_needs_no_state(rig: Rig) -> None:
    forgotten = rig.open("feedfacefeedface")
    await forgotten.start(FIRST)
    await forgotten.aclose()
    stranger = rig.cloud.stranger()
    sweeper = rig.open("0000000000000000")
    early = await sweeper.sweep_expired(dry_run=False)
    rig.clock.ahead_s += 3601.0
    listed = await sweeper.sweep_expired(dry_run=True)
    swept = await sweeper.sweep_expired(dry_run=False)
    rig.clock.ahead_s += 1.0
    await sweeper.aclose()

    assert early == []
    assert listed == swept
    assert len(swept) == 1
    assert rig.cloud.exists(stranger)


async def test_a_proxy_that_dies_while_it_wakes_one_starts_it_all_the_same(
    rig: Rig, backend: ExoscaleBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await standby(backend)
    monkeypatch.setattr(backend._journal, "put", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await backend._take_standby(SECOND)
    again = rig.open(idle_action="stop")
    await standby(again, SECOND)
    await again.aclose()

    assert rig.cloud.bought == 1


async def test_a_thorough_sweep_removes_the_group_once_nothing_needs_it(
    rig: Rig,
) -> None:
    backend = rig.open()
    await backend.start(FIRST)
    await backend.tidy()
    in_use = len(rig.cloud.groups)
    await backend.stop(FIRST)
    await until(backend, FIRST, Phase.GONE)
    await backend.tidy()
    await backend.aclose()

    assert (in_use, rig.cloud.groups) == (1, {})


async def test_what_became_no_launch_is_deleted_though_it_was_set_up(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    await backend.start(FIRST)
    await until(backend, FIRST, Phase.RUNNING)
    await until(backend, FIRST, Phase.GONE, stops=True)
    (instance,) = rig.cloud.instances.values()

    assert not rig.cloud.exists(instance)


async def test_one_that_may_not_be_stopped_is_deleted(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    rig.server.always["stop-instance"] = "403"
    await standby(backend)
    (instance,) = rig.cloud.instances.values()

    assert not rig.cloud.exists(instance)


async def test_one_that_does_not_stop_is_deleted(
    rig: Rig, backend: ExoscaleBackend
) -> None:
    rig.cloud.timing.leave_s = 1e6
    await backend.start(FIRST)
    await until(backend, FIRST, Phase.RUNNING)
    await backend.renew(FIRST, serves=True)
    await backend.stop(FIRST)
    rig.cloud.timing.leave_s = 0.0
    rig.clock.ahead_s += 901.0
    await until(backend, FIRST, Phase.GONE, stops=True)
    (instance,) = rig.cloud.instances.values()

    assert not rig.cloud.exists(instance)


async def test_a_zone_that_left_the_settings_is_still_looked_into(rig: Rig) -> None:
    before = rig.open(idle_action="stop")
    await standby(before)
    await before.aclose()
    moved = rig.open(idle_action="stop", zone="de-fra-1")
    rig.clock.ahead_s += 86_401.0
    over = await moved.owned()
    for launch_id in over:
        await moved.stop(launch_id)
    await moved.aclose()

    assert len(over) == 1


def test_odd_answers_about_strangers_are_nobodys_business() -> None:
    answer = {"instances": [{"id": "x", "labels": None, "name": None, "state": 7}]}

    assert read_instances(answer) == []


async def test_a_full_disk_keeps_nothing_running(
    rig: Rig, backend: ExoscaleBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backend.start(FIRST)
    await until(backend, FIRST, Phase.RUNNING)
    await backend.renew(FIRST, serves=True)

    def full(*_: object) -> None:
        raise StoreError("the state can't be written: disk full")

    monkeypatch.setattr(backend._journal, "put", full)
    await backend.stop(FIRST)
    (instance,) = rig.cloud.instances.values()

    assert rig.cloud.state(instance) == "destroying"
