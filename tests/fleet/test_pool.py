"""Leases, waiters and wakes, in virtual time."""

import asyncio
import random

import pytest
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import (
    CapacityError,
    CredentialsError,
    HoldLimitError,
    StoreError,
    TransientError,
)
from ollama_proxy.core.lifecycle.events import Wake
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Policy,
    Progress,
    Record,
    Stage,
    State,
)
from ollama_proxy.fleet.backend import Observation, Phase, Traits
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from tests.fakes.cloud import FakeCloud
from tests.fakes.probe import FakeProbe
from tests.fakes.store import FaultyStore
from tests.fleet.rig import Deployment
from tests.virtual_time import LoopClock, in_virtual_time


@in_virtual_time
async def test_many_waiters_share_one_launch_and_one_load() -> None:
    deployment = Deployment()
    leases = await asyncio.gather(
        *(deployment.pool.lease("m", wait_s=60) for _ in range(500))
    )

    assert all(lease is not None for lease in leases)
    assert deployment.cloud.launches == 1
    assert deployment.probe.prepared == ["m"]
    assert deployment.pool.in_flight == 500
    await deployment.pool.aclose()


@in_virtual_time
async def test_the_waiting_are_released_in_a_ramp_and_within_250_ms() -> None:
    deployment = Deployment()
    moments: list[float] = []
    loop = asyncio.get_running_loop()

    async def ask() -> None:
        await deployment.pool.lease("m", wait_s=60)
        moments.append(loop.time())

    await asyncio.gather(*(ask() for _ in range(2000)))

    assert len([m for m in moments if m == moments[0]]) <= 8
    assert moments[-1] - moments[0] < 0.25
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_wait_ends_at_its_deadline_and_the_launch_goes_on() -> None:
    deployment = Deployment()
    deployment.probe.load_s = 100.0
    begun = asyncio.get_running_loop().time()
    lease = await deployment.pool.lease("m", wait_s=30)

    assert lease is None
    assert asyncio.get_running_loop().time() - begun == pytest.approx(30)
    assert deployment.pool.waiting == 0
    assert deployment.state is State.STARTING
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_wait_outlives_the_stop_that_was_under_way() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    deployment.pool.stop()
    lease = await deployment.pool.lease("m", wait_s=60)

    assert lease is not None
    assert deployment.cloud.launches == 2
    assert deployment.cloud.most_paid == 1
    await deployment.pool.aclose()


@in_virtual_time
async def test_no_more_may_wait_than_the_bound() -> None:
    deployment = Deployment(max_waiting=2)
    waits = [
        asyncio.ensure_future(deployment.pool.lease("m", wait_s=60)) for _ in range(2)
    ]
    await asyncio.sleep(0)
    with pytest.raises(HoldLimitError, match="2 requests wait already"):
        await deployment.pool.lease("m", wait_s=60)

    assert None not in await asyncio.gather(*waits)
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_idle_instance_goes_at_its_timeout_and_not_before() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    await asyncio.sleep(10_000)
    assert deployment.cloud.paid == 1
    lease.mark_used()
    lease.release()
    await asyncio.sleep(299)
    assert deployment.cloud.paid == 1
    await asyncio.sleep(5)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_requests_that_are_no_use_keep_no_instance() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    begun = asyncio.get_running_loop().time()
    while (lease := deployment.pool.try_lease()) is not None:
        await asyncio.sleep(0.5)
        lease.release()
        await asyncio.sleep(0.2)

    assert 290 < asyncio.get_running_loop().time() - begun < 301
    await deployment.pool.aclose()


@in_virtual_time
async def test_requests_without_a_pause_between_them_keep_no_instance() -> None:
    deployment = Deployment()
    lease: Lease | None = await deployment.lease()
    begun = asyncio.get_running_loop().time()
    while lease is not None:
        await asyncio.sleep(0.5)
        lease.release()
        lease = deployment.pool.try_lease()

    assert asyncio.get_running_loop().time() - begun < 301
    await deployment.pool.aclose()


@in_virtual_time
async def test_looks_that_overlap_keep_no_instance() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + 310

    async def look() -> None:
        while loop.time() < ends_at and (lease := deployment.pool.observe()):
            await asyncio.sleep(2.0)
            lease.release()

    looks = []
    for _ in range(3):
        looks.append(asyncio.ensure_future(look()))
        await asyncio.sleep(0.7)
    await asyncio.sleep(303)

    assert deployment.cloud.paid == 0
    await asyncio.gather(*looks)
    await deployment.pool.aclose()


@in_virtual_time
async def test_looks_are_let_through_as_long_as_a_request_is_at_work() -> None:
    deployment = Deployment()
    await deployment.lease()
    await asyncio.sleep(1000)

    assert deployment.pool.observe() is not None
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_request_that_was_use_keeps_it_from_its_end_on() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    lease.mark_used()
    await asyncio.sleep(1000)
    lease.release()
    await asyncio.sleep(299)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_bytes_that_move_are_use_when_they_move_and_not_later() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    await asyncio.sleep(1000)
    lease.mark_moving()
    await asyncio.sleep(200)
    lease.release()
    assert deployment.state is State.READY
    await asyncio.sleep(101)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_lease_that_only_holds_is_no_use_whatever_comes_of_it() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    lease = deployment.pool.observe()
    assert lease is not None
    lease.mark_used()
    lease.mark_moving()
    await asyncio.sleep(1000)
    assert deployment.state is State.READY
    lease.release()
    await asyncio.sleep(1)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_crash_in_mid_stream_leaves_no_instance_that_seems_idle() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    lease.mark_used()
    await asyncio.sleep(3600)
    await deployment.restart()  # nothing released the lease
    await asyncio.sleep(5)

    assert deployment.state is State.READY
    assert deployment.cloud.launches == 1
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_crash_right_after_the_first_token_is_one_in_mid_stream() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    await asyncio.sleep(299)
    lease.mark_used()
    await asyncio.sleep(2)
    await deployment.restart()
    await asyncio.sleep(5)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_crash_in_mid_stream_is_survived_with_a_short_idle_time_too() -> None:
    deployment = Deployment(Policy(idle_timeout_s=6))
    lease = await deployment.lease()
    await asyncio.sleep(3)
    lease.mark_used()
    await asyncio.sleep(7)
    await deployment.restart()
    await asyncio.sleep(3)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_crash_while_requests_come_to_nothing_prolongs_nothing() -> None:
    deployment = Deployment()
    await deployment.lease()
    await asyncio.sleep(3600)
    await deployment.restart()
    await asyncio.sleep(5)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_restarted_proxy_adopts_the_same_instance() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    launch_id = deployment.record.launch_id
    await deployment.restart()
    await asyncio.sleep(5)

    assert deployment.state is State.READY
    assert deployment.record.launch_id == launch_id
    assert deployment.cloud.launches == 1
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_instance_nobody_remembers_is_swept() -> None:
    deployment = Deployment()
    await asyncio.sleep(5)
    await deployment.cloud.start(LaunchId("stray"))
    assert await deployment.pool.sweeper.sweep(dry_run=True) == ["stray"]
    assert deployment.cloud.paid == 1
    await asyncio.sleep(700)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_launch_that_fails_is_tried_again_while_somebody_waits() -> None:
    deployment = Deployment()
    deployment.cloud.start_error = CapacityError("no GPU left in this zone")
    waiting = asyncio.ensure_future(deployment.pool.lease("m", wait_s=200))
    await asyncio.sleep(5)
    assert deployment.state is State.COOLDOWN
    deployment.cloud.start_error = None

    assert await waiting is not None
    assert deployment.cloud.calls.count("start") == 2
    await deployment.pool.aclose()


@in_virtual_time
async def test_at_the_limit_of_failures_nobody_waits_in_vain() -> None:
    deployment = Deployment()
    deployment.cloud.start_error = CapacityError("no GPU left in this zone")
    begun = asyncio.get_running_loop().time()
    lease = await deployment.pool.lease("m", wait_s=3600)

    assert lease is None
    assert asyncio.get_running_loop().time() - begun < 60
    assert deployment.cloud.calls.count("start") == 3
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_fault_that_only_a_person_mends_is_not_tried_again() -> None:
    deployment = Deployment()
    deployment.cloud.start_error = CredentialsError("the key has expired")
    lease = await deployment.pool.lease("m", wait_s=3600)
    await asyncio.sleep(7200)

    assert lease is None
    assert deployment.cloud.calls.count("start") == 1
    deployment.cloud.start_error = None
    await deployment.pool.wake(forced=True)
    await asyncio.sleep(10)
    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_launch_that_never_boots_is_given_up_at_the_start_timeout() -> None:
    deployment = Deployment(Policy(start_timeout_s=600))
    deployment.cloud.faults.never_boots = True
    await deployment.pool.wake()
    await asyncio.sleep(590)
    assert deployment.cloud.paid == 1
    await asyncio.sleep(30)

    assert deployment.cloud.paid == 0
    fault = deployment.record.fault
    assert fault is not None
    assert fault.reason == "start_timeout"
    await deployment.pool.aclose()


@in_virtual_time
async def test_progress_keeps_a_slow_launch_alive() -> None:
    deployment = Deployment(Policy(start_timeout_s=600))
    deployment.probe.steps = [
        Progress(Stage.PULLING, n / 10, "huge") for n in range(10)
    ]
    deployment.probe.step_s = 500.0
    lease = await deployment.pool.lease("m", wait_s=6000)

    assert lease is not None
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_model_that_does_not_fit_is_told_and_the_instance_stopped() -> None:
    deployment = Deployment()
    deployment.probe.fault = Fault("load", "the model 'm' could not be loaded: oom")
    await deployment.pool.wake()
    await asyncio.sleep(8)

    assert deployment.cloud.paid == 0
    assert deployment.state is State.COOLDOWN
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_silent_instance_is_lost_after_three_probes() -> None:
    deployment = Deployment()
    await deployment.lease()
    deployment.probe.answers = False
    await asyncio.sleep(60)

    assert deployment.cloud.calls.count("stop") >= 1
    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_silence_that_a_backend_explains_is_forgiven_for_five_minutes() -> None:
    deployment = Deployment()
    await deployment.lease()
    deployment.probe.answers = False
    upstream = deployment.controller.upstream
    deployment.cloud.end = Observation(Phase.RUNNING, upstream, problem="locked out")
    await asyncio.sleep(290)
    forgiven = deployment.state
    await asyncio.sleep(60)

    assert forgiven is State.READY
    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_instance_that_sends_bytes_is_not_silent() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    deployment.probe.answers = False
    for _ in range(120):
        lease.mark_alive()
        await asyncio.sleep(5)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_nudge_finds_a_vanished_instance_at_once() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    deployment.cloud.preempt()
    lease.check_now()
    await asyncio.sleep(1)

    assert deployment.state in {State.STOPPING, State.COOLDOWN, State.COLD}
    await deployment.pool.aclose()


@in_virtual_time
async def test_without_a_disk_nothing_is_launched() -> None:
    deployment = Deployment()
    await asyncio.sleep(1)
    deployment.store.is_full = True
    with pytest.raises(StoreError, match="disk full"):
        await deployment.pool.lease("m", wait_s=60)

    assert deployment.cloud.calls.count("start") == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_without_a_disk_what_runs_is_still_stopped_for_idleness() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    deployment.store.is_full = True
    await asyncio.sleep(100)
    lease.release()
    await asyncio.sleep(400)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


def _stop_error(deployment: Deployment) -> str | None:
    return deployment.record.stop_error


@in_virtual_time
async def test_a_stop_that_fails_is_asked_again_until_the_cloud_agrees() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    deployment.cloud.faults.stop_fails = 1.0
    deployment.pool.stop()
    await asyncio.sleep(30)
    assert _stop_error(deployment) is not None
    deployment.cloud.faults.stop_fails = 0.0
    await asyncio.sleep(120)

    assert deployment.cloud.paid == 0
    assert _stop_error(deployment) is None
    await deployment.pool.aclose()


async def told_of_a_stop_that_fails(fault: type[Exception]) -> str:
    """Return what the record and the log say of a stop whose error names a token."""

    class Telling(FakeCloud):
        async def stop(self, launch_id: LaunchId) -> None:
            raise fault("the token open-sesame was refused")

    deployment = Deployment(cloud=Telling(), secrets={"open-sesame"})
    (await deployment.lease()).release()
    deployment.pool.stop()
    with structlog.testing.capture_logs() as logs:
        await asyncio.sleep(10)
    await deployment.pool.aclose()
    calls = [one for one in logs if one["event"] == log.INSTANCE_CALL_FAILED]
    return f"{_stop_error(deployment)} {calls}"


@in_virtual_time
async def test_a_stop_that_fails_tells_no_secret() -> None:
    for fault in (TransientError, KeyError):
        told = await told_of_a_stop_that_fails(fault)

        assert "the token *** was refused" in told
        assert "sesame" not in told


@in_virtual_time
async def test_a_server_that_is_there_anyway_is_joined_at_once_and_never_left() -> None:
    cloud = FakeCloud(traits=Traits(externally_managed=True, poll_s=1.0))
    deployment = Deployment(cloud=cloud)
    await asyncio.sleep(10)
    assert deployment.state is State.READY
    await asyncio.sleep(100_000)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_ending_lets_nobody_wait_and_wakes_nothing() -> None:
    deployment = Deployment()
    waiting = asyncio.ensure_future(deployment.pool.lease("m", wait_s=60))
    await asyncio.sleep(0)
    deployment.pool.stop_admitting()

    assert await waiting is None
    calls = deployment.cloud.launches
    assert await deployment.pool.lease("m", wait_s=0) is None
    assert deployment.cloud.launches == calls
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_start_call_that_outlives_its_stop_leaves_nothing() -> None:
    deployment = Deployment()
    await deployment.pool.wake()
    await asyncio.sleep(0.005)
    assert deployment.cloud.calls == ["start"]
    deployment.pool.stop()
    await asyncio.sleep(30)

    assert deployment.cloud.paid == 0
    assert deployment.state is State.COLD
    await deployment.pool.aclose()


@in_virtual_time
async def test_one_stray_that_can_not_be_stopped_shields_no_other() -> None:
    class Locked(FakeCloud):
        async def stop(self, launch_id: LaunchId) -> None:
            if launch_id == "l1":
                raise TransientError("locked")
            await super().stop(launch_id)

    cloud = Locked()
    for name in ("l1", "l2", "l3"):
        await cloud.start(LaunchId(name))
    deployment = Deployment(cloud=cloud)
    await asyncio.sleep(60)

    assert list(cloud.instances) == ["l1"]
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_burst_of_refused_requests_is_one_failure_not_three() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    deployment.probe.answers = False
    for _ in range(50):
        lease.check_now()
        await asyncio.sleep(0.01)
    assert deployment.state is State.READY
    deployment.probe.answers = True
    await asyncio.sleep(60)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_wake_while_stopping_is_carried_out_when_it_is_cold() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    deployment.pool.stop()
    assert await deployment.pool.lease("m", wait_s=0) is None
    await asyncio.sleep(30)

    assert deployment.state is State.READY
    assert deployment.cloud.launches == 2
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_stop_gives_up_who_waits() -> None:
    deployment = Deployment()
    waiting = asyncio.ensure_future(deployment.pool.lease("m", wait_s=600))
    await asyncio.sleep(1)
    deployment.pool.stop()

    assert await waiting is None
    await asyncio.sleep(60)
    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_stop_that_the_cloud_accepts_and_forgets_is_told() -> None:
    class Forgetful(FakeCloud):
        async def stop(self, launch_id: LaunchId) -> None:
            self.calls.append("stop")

    deployment = Deployment(cloud=Forgetful())
    (await deployment.lease()).release()
    deployment.pool.stop()
    await asyncio.sleep(400)

    assert "still there" in (_stop_error(deployment) or "")
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_backend_that_keeps_crashing_ends_the_launch() -> None:
    class Broken(FakeCloud):
        async def start(self, launch_id: LaunchId) -> None:
            raise KeyError("zone")

    deployment = Deployment(cloud=Broken())
    await deployment.pool.wake()
    with structlog.testing.capture_logs() as logs:
        await asyncio.sleep(20)

    fault = deployment.record.fault
    assert fault is not None
    assert fault.message == "KeyError in start: 'zone'"
    assert logs
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_owner_that_crashes_begins_again() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    executor = deployment.controller._executor
    whole = executor._until_something_happens

    async def crash(_work: object) -> None:
        executor._until_something_happens = whole  # type: ignore[method-assign]  # once
        raise RuntimeError("on purpose")

    executor._until_something_happens = crash  # type: ignore[method-assign,assignment]  # once
    with structlog.testing.capture_logs() as logs:
        lease.release()
        await asyncio.sleep(400)

    crashed = [entry["task"] for entry in logs if entry["event"] == log.TASK_CRASHED]
    assert crashed == ["owner"]
    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_wish_in_the_same_second_changes_nothing_and_a_later_one_counts() -> (
    None
):
    deployment = Deployment()
    await deployment.pool.wake("m")
    woken = deployment.record
    await deployment.pool.wake("m")
    at_once = deployment.record
    await asyncio.sleep(1.5)
    await deployment.pool.wake("m")
    later = deployment.record

    assert woken.state is State.STARTING
    assert at_once is woken
    assert later.last_used == woken.last_used + 1.5
    await deployment.pool.aclose()


class TwoSlots:
    """A pool of two slots, each with a cloud of its own."""

    def __init__(self) -> None:
        self.clouds = [FakeCloud(), FakeCloud()]
        self.store, self.probe = FaultyStore(), FakeProbe()
        self.controllers = [
            Controller(
                f"default-{number}",
                Offer("fake", cloud),
                store=self.store,
                launches=self.store,
                probe=self.probe,
                clock=LoopClock(),
                policy=Policy(),
                rng=random.Random(number),
            )
            for number, cloud in enumerate(self.clouds)
        ]
        self.pool = Pool(
            self.controllers, store=self.store, clock=LoopClock(), max_waiting=9
        )
        self.pool.start()

    async def both_ready(self) -> None:
        for number, one in enumerate(self.controllers):
            await one.wake(Wake(LaunchId(f"l{number}")))
        while {one.record.state for one in self.controllers} != {State.READY}:
            await asyncio.sleep(0.1)


@in_virtual_time
async def test_the_least_busy_instance_is_leased() -> None:
    slots = TwoSlots()
    await slots.both_ready()
    leases = [slots.pool.try_lease() for _ in range(6)]
    busy = [one.record.leases for one in slots.controllers]
    for lease in leases[::2]:  # those of the first slot
        assert lease is not None
        lease.release()
    again = [slots.pool.try_lease() for _ in range(3)]
    await slots.pool.aclose()

    assert busy == [3, 3]
    assert [lease and lease.launch_id for lease in again] == ["l0"] * 3


@in_virtual_time
async def test_a_wake_launches_one_instance_however_many_slots_there_are() -> None:
    slots = TwoSlots()
    await slots.pool.wake("m")
    states = [one.record.state for one in slots.controllers]
    lease = await slots.pool.lease("m", wait_s=60.0)
    await slots.pool.aclose()

    assert states == [State.STARTING, State.COLD]
    assert lease is not None
    assert [cloud.launches for cloud in slots.clouds] == [1, 0]


@in_virtual_time
async def test_a_wake_that_comes_by_itself_after_a_stop_is_no_launch_of_another() -> (
    None
):
    deployment = Deployment()
    would: dict[State, bool] = {}

    def note(_before: Record, after: Record) -> None:
        would[after.state] = deployment.pool.would_launch

    await deployment.pool.lease("m", wait_s=60)
    deployment.pool.stop()
    before = deployment.pool.would_launch
    await deployment.pool.wake()
    deployment.controller.subscribe(note)
    while deployment.state is not State.READY:
        await asyncio.sleep(1)
    await deployment.pool.aclose()

    assert before
    assert State.COLD in would
    assert not any(would.values())
