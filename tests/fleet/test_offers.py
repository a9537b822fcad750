"""Several offers in one pool: which is asked, which is passed over, what is said."""

import asyncio
import itertools
from dataclasses import replace

import pytest

from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    CredentialsError,
    OutcomeUnknownError,
    RateLimitError,
    SpecError,
    StoreError,
    TransientError,
)
from ollama_proxy.core.lifecycle.record import Fault, LaunchId, State
from ollama_proxy.fleet.backend import Observation, Phase
from tests.fakes.cloud import CloudFaults
from tests.fleet.pools import SeveralOffers, until
from tests.virtual_time import in_virtual_time

NO_ROOM = CapacityError("no GPU is free in at-vie-2")
DAY_S = 86_400.0


@in_virtual_time
async def test_the_first_offer_is_asked_first() -> None:
    pools = SeveralOffers()
    await pools.serve()
    await pools.pool.aclose()

    assert pools.launches == {"first": 1, "second": 0}


@in_virtual_time
async def test_without_room_the_next_offer_answers_within_the_same_wait() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = NO_ROOM
    begun = asyncio.get_running_loop().time()
    lease = await pools.lease(wait_s=20.0)
    took_s = asyncio.get_running_loop().time() - begun
    await pools.pool.aclose()

    assert lease.launch_id == "l2"
    assert pools.starts == {"first": 1, "second": 1}
    assert took_s < 5.0


@in_virtual_time
async def test_a_try_without_room_leaves_beside_the_next_until_it_is_gone() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = NO_ROOM
    pools.clouds["first"].faults = CloudFaults(stop_fails=1.0)
    await pools.serve()
    leaving = pools.record("first")
    assert (leaving.state, leaving.leaving) == (State.STOPPING, True)
    assert pools.store.launch_ids() == {"l1", "l2"}
    pools.clouds["first"].faults = CloudFaults()
    await until(lambda: pools.record("first").launch_id is None)
    await pools.pool.aclose()

    assert pools.record("second").state is State.READY


@in_virtual_time
async def test_what_turns_up_after_no_room_is_stopped_and_never_leased() -> None:
    pools = SeveralOffers()
    first = pools.clouds["first"]
    first.start_error = NO_ROOM
    first.faults = CloudFaults(stop_fails=1.0)
    await pools.serve()
    first._create(pools.record("first").launch_id)  # type: ignore[arg-type]  # it is there
    await asyncio.sleep(30.0)
    lease = await pools.lease()
    assert lease.launch_id == "l2"
    first.faults = CloudFaults()
    await until(lambda: first.paid == 0)
    await pools.pool.aclose()


@in_virtual_time
async def test_no_room_is_remembered_for_a_minute_doubling_up_to_15() -> None:
    pools = SeveralOffers()
    for cloud in pools.clouds.values():
        cloud.start_error = NO_ROOM
    waiting = asyncio.ensure_future(pools.pool.lease("m", wait_s=4000.0))
    await asyncio.sleep(3500.0)
    waiting.cancel()
    await pools.pool.aclose()

    asked_at = [at for at, _ in pools.clouds["first"].asked]
    gaps = [b - a for a, b in itertools.pairwise(asked_at)]
    expected = [60.0, 120.0, 240.0, 480.0, 900.0, 900.0]
    assert gaps == [pytest.approx(gap, abs=3.0) for gap in expected[: len(gaps)]]
    assert len(gaps) >= 5


@in_virtual_time
async def test_a_client_that_was_told_503_finds_the_second_offer_coming() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = NO_ROOM
    assert await pools.pool.lease("m", wait_s=0.0) is None
    await until(lambda: pools.pool.is_ready, 20.0)
    await pools.pool.aclose()

    assert pools.starts == {"first": 1, "second": 1}


@in_virtual_time
async def test_nobody_asks_so_no_offer_is_asked_again_when_its_pause_is_over() -> None:
    pools = SeveralOffers()
    for cloud in pools.clouds.values():
        cloud.start_error = NO_ROOM
    assert await pools.pool.lease("m", wait_s=0.0) is None
    await asyncio.sleep(DAY_S)
    await pools.pool.aclose()

    assert pools.starts == {"first": 1, "second": 1}


@pytest.mark.parametrize(
    "error", [SpecError("there is no template 'x'"), CredentialsError("expired")]
)
def test_settings_that_can_not_work_switch_an_offer_off_for_a_day(
    error: BackendError,
) -> None:
    @in_virtual_time
    async def asked() -> None:
        pools = SeveralOffers()
        pools.clouds["first"].start_error = error
        await pools.serve()
        told = pools.pool.obstacles()["first"]
        assert (told.is_off, str(error) in told.message) == (True, True)
        pools.pool.stop()
        await asyncio.sleep(DAY_S - 3600.0)
        await pools.serve()
        assert pools.starts == {"first": 1, "second": 2}
        pools.clouds["first"].start_error = None
        await asyncio.sleep(7200.0)
        await pools.serve()
        await pools.pool.aclose()

        assert pools.launches == {"first": 1, "second": 2}

    asked()


@in_virtual_time
async def test_a_person_has_every_offer_tried_anew() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = SpecError("there is no template 'x'")
    await pools.serve()
    pools.pool.stop()
    await asyncio.sleep(60.0)
    pools.clouds["first"].start_error = None
    await pools.pool.wake(forced=True)
    await until(lambda: pools.pool.is_ready)
    await pools.pool.aclose()

    assert pools.record("first").state is State.READY


@in_virtual_time
async def test_with_every_offer_off_who_waits_is_told_at_once_why() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = SpecError("there is no template 'x'")
    pools.clouds["second"].start_error = CredentialsError("the token has expired")
    begun = asyncio.get_running_loop().time()
    assert await pools.pool.lease("m", wait_s=3600.0) is None
    took_s = asyncio.get_running_loop().time() - begun
    told = pools.pool.obstacles()
    assert await pools.pool.lease("m", wait_s=3600.0) is None
    await pools.pool.aclose()

    assert took_s < 10.0
    assert list(told) == ["first", "second"]
    assert "there is no template 'x'" in told["first"].message
    assert "the token has expired" in told["second"].message
    assert pools.starts == {"first": 1, "second": 1}


@pytest.mark.parametrize("error", [TransientError("500"), RateLimitError("too many")])
def test_a_cloud_that_takes_no_call_is_left_after_three(error: BackendError) -> None:
    @in_virtual_time
    async def asked() -> None:
        pools = SeveralOffers()
        pools.clouds["first"].start_error = error
        begun = asyncio.get_running_loop().time()
        await pools.serve()
        took_s = asyncio.get_running_loop().time() - begun
        assert pools.record("first").launch_id is None  # it left before the next began
        assert pools.record("first").paid_launches == ()
        pools.pool.stop()
        await asyncio.sleep(30.0)
        await pools.serve()
        await pools.pool.aclose()

        assert pools.starts == {"first": 3, "second": 2}
        assert took_s < 20.0

    asked()


@in_virtual_time
async def test_a_cloud_that_takes_no_call_for_30_s_is_left_whatever_the_tries() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = TransientError("no answer to the greeting")
    pools.clouds["first"].faults = CloudFaults(travel_s=16.0)
    begun = asyncio.get_running_loop().time()
    await pools.serve(300.0)
    took_s = asyncio.get_running_loop().time() - begun
    await pools.pool.aclose()

    assert pools.starts["first"] == 2
    assert 32.0 < took_s < 32.0 + 60.0  # a stop takes three calls


@in_virtual_time
async def test_an_unknown_outcome_keeps_its_slot_until_the_cloud_answers() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = OutcomeUnknownError("the answer was lost")
    assert await pools.pool.lease("m", wait_s=600.0) is None
    assert pools.starts["second"] == 0
    pools.clouds["first"].start_error = TransientError("500")
    assert await pools.pool.lease("m", wait_s=300.0) is None
    assert pools.starts["second"] == 0
    pools.clouds["first"].start_error = None
    await pools.serve(200.0)
    await pools.pool.aclose()

    assert pools.launches == {"first": 1, "second": 0}


def failed(reason: str) -> Observation:
    return Observation(Phase.FAILED, detail=f"the {reason} is broken", reason=reason)


@in_virtual_time
async def test_a_driver_that_fails_twice_switches_that_offer_off_for_a_day() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].end = failed("driver")
    for _ in range(3):
        await pools.serve()
        pools.pool.stop()
        await asyncio.sleep(60.0)
    await pools.pool.aclose()

    assert pools.launches == {"first": 2, "second": 3}
    assert pools.pool.obstacles()["first"].is_off


@in_virtual_time
async def test_a_driver_that_fails_on_two_slots_has_failed_twice() -> None:
    pools = SeveralOffers(("only",), most=2)
    pools.clouds["only"].end = failed("driver")
    await pools.pool.wake()
    await until(lambda: pools.record("only").state is State.COLD)  # its pause is over
    first = pools.record("only")
    stopping = replace(first, state=State.STOPPING, launch_id=LaunchId("x"))
    pools.controller("only")._record = stopping  # so the next goes to the other slot
    await pools.pool.wake()
    await until(lambda: pools.record("only", 1).lockout is not None)
    await pools.pool.aclose()

    assert first.lockout is None
    assert pools.launches == {"only": 2}


@in_virtual_time
async def test_a_model_that_no_registry_has_ends_the_wake_and_asks_no_other_offer() -> (
    None
):
    pools = SeveralOffers()
    pools.probes["first"].fault = Fault("pull", "no such model: 'x'", final=True)
    begun = asyncio.get_running_loop().time()
    assert await pools.pool.lease("m", wait_s=3600.0) is None
    took_s = asyncio.get_running_loop().time() - begun
    assert await pools.pool.lease("m", wait_s=3600.0) is None
    await pools.pool.aclose()

    assert took_s < 30.0
    assert pools.launches == {"first": 1, "second": 0}
    assert "no such model" in pools.pool.obstacles()["second"].message


BROKEN = Observation(Phase.FAILED, detail="it does not come up")


async def ask_for(pools: SeveralOffers, length_s: float) -> None:
    """Let a client ask each second; it takes no answer but a 503."""
    ends_at = asyncio.get_running_loop().time() + length_s
    while asyncio.get_running_loop().time() < ends_at:
        assert await pools.pool.lease("m", wait_s=0.0) is None
        await asyncio.sleep(1.0)


@pytest.mark.no_cover  # thousands of plans, in hours of virtual time
@pytest.mark.parametrize("most", [1, 3])
def test_launches_in_vain_count_over_all_offers_and_slots_of_the_pool(
    most: int,
) -> None:
    @in_virtual_time
    async def asked() -> None:
        pools = SeveralOffers(most=most)
        for cloud in pools.clouds.values():
            cloud.end = BROKEN
        await ask_for(pools, 1800.0)
        assert sum(pools.launches.values()) == 5
        await pools.restart()
        await ask_for(pools, 1800.0)
        assert sum(pools.launches.values()) == 5
        assert pools.pool.obstacles()["first"].is_off
        await asyncio.sleep(DAY_S)
        await ask_for(pools, 600.0)
        await pools.pool.aclose()

        assert sum(pools.launches.values()) == 10

    asked()


@in_virtual_time
async def test_only_a_request_that_the_pool_served_clears_the_count() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].end = BROKEN
    for _ in range(8):
        await pools.serve()  # the first fails, the second serves
        pools.pool.stop()
        await asyncio.sleep(60.0)
    await pools.pool.aclose()

    assert pools.launches["second"] == 8
    assert not any(one.record.paid_launches for one in pools.pool.controllers)


@in_virtual_time
async def test_what_a_process_had_no_time_to_lock_the_next_one_locks() -> None:
    pools = SeveralOffers()
    for cloud in pools.clouds.values():
        cloud.end = BROKEN
    await ask_for(pools, 1800.0)
    slot = "default/0/second"
    record = pools.store.records[slot]
    assert record.lockout is not None
    unlocked = replace(record, state=State.COLD, lockout=None)
    await pools.pool.aclose()
    pools.store.records[slot] = unlocked
    pools.pool = pools.open()
    await ask_for(pools, 600.0)
    await pools.pool.aclose()

    assert sum(pools.launches.values()) == 5


@in_virtual_time
async def test_a_restart_forgets_no_offer_that_is_off_nor_a_try_that_leaves() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = NO_ROOM
    pools.clouds["first"].faults = CloudFaults(stop_fails=1.0)
    await pools.serve()
    await pools.restart()
    await until(lambda: pools.pool.is_ready)
    leaving = pools.record("first")
    pools.clouds["first"].faults = CloudFaults()
    await until(lambda: pools.record("first").launch_id is None)
    await pools.pool.aclose()

    assert leaving.leaving
    assert pools.starts == {"first": 1, "second": 1}


@in_virtual_time
async def test_no_launch_id_is_ever_handed_to_two_offers() -> None:
    pools = SeveralOffers(("a", "b", "c"))
    for name in ("a", "b"):
        pools.clouds[name].start_error = NO_ROOM
    await pools.serve()
    await pools.pool.aclose()

    asked = {n: {id_ for _, id_ in cloud.asked} for n, cloud in pools.clouds.items()}
    assert asked == {"a": {"l1"}, "b": {"l2"}, "c": {"l3"}}


@in_virtual_time
async def test_new_settings_of_an_offer_switch_it_on_and_no_other() -> None:
    pools = SeveralOffers()
    for cloud in pools.clouds.values():
        cloud.start_error = SpecError("there is no template 'x'")
    assert await pools.pool.lease("m", wait_s=60.0) is None
    pools.specs["second"] = "another template"
    await pools.restart()
    assert list(pools.pool.obstacles()) == ["first"]
    pools.clouds["second"].start_error = None
    await pools.serve()
    await pools.pool.aclose()

    assert pools.starts == {"first": 1, "second": 2}


@in_virtual_time
async def test_who_got_an_error_of_the_disk_is_bought_nothing_afterwards() -> None:
    pools = SeveralOffers()
    pools.store.is_full = True
    with pytest.raises(StoreError, match="disk full"):
        await pools.pool.lease("m", wait_s=60.0)
    pools.store.is_full = False
    await asyncio.sleep(3600.0)
    await pools.pool.aclose()

    assert pools.starts == {"first": 0, "second": 0}


@in_virtual_time
async def test_a_persons_order_buys_one_launch_beyond_the_limit_whatever_ends_it() -> (
    None
):
    pools = SeveralOffers(most=2)
    for cloud in pools.clouds.values():
        cloud.end = failed("capacity")  # it was accepted, so it is paid for
    await ask_for(pools, 1800.0)
    before = sum(pools.launches.values())
    await pools.pool.wake(forced=True)
    await ask_for(pools, 600.0)
    await pools.pool.aclose()

    assert (before, sum(pools.launches.values())) == (5, 6)


@in_virtual_time
async def test_what_a_call_of_a_process_that_died_may_have_made_counts() -> None:
    pools = SeveralOffers()
    for cloud in pools.clouds.values():
        cloud.end = BROKEN
    assert await pools.pool.lease("m", wait_s=0.0) is None
    await until(lambda: pools.clouds["first"].paid == 1)
    await pools.restart()  # before the cloud's answer is written down
    pools.clouds["first"].start_error = TransientError("500")
    await until(lambda: pools.record("first").launch_id is None, 60.0)
    pools.clouds["first"].start_error = None
    await ask_for(pools, 1800.0)
    await pools.pool.aclose()

    assert sum(pools.launches.values()) == 5


@in_virtual_time
async def test_what_a_call_without_an_answer_may_have_made_counts() -> None:
    pools = SeveralOffers(("only",))
    cloud = pools.clouds["only"]
    cloud.faults = CloudFaults(lost_after=1.0)
    assert await pools.pool.lease("m", wait_s=0.0) is None
    await until(lambda: cloud.paid == 1)
    cloud.start_error = CredentialsError("expired")
    await until(lambda: pools.record("only").launch_id is None, 60.0)
    await pools.pool.aclose()

    assert len(pools.record("only").paid_launches) == 1


@pytest.mark.parametrize("error", [NO_ROOM, CredentialsError("expired")])
def test_an_order_beyond_the_limit_is_not_used_up_by_an_offer_that_refuses(
    error: BackendError,
) -> None:
    @in_virtual_time
    async def asked() -> None:
        pools = SeveralOffers()
        for cloud in pools.clouds.values():
            cloud.end = BROKEN
        await ask_for(pools, 1800.0)
        before = sum(pools.launches.values())
        pools.clouds["first"].start_error = error
        pools.clouds["second"].end = None
        await pools.pool.wake(forced=True)
        await until(lambda: pools.pool.is_ready, 120.0)
        await pools.pool.aclose()

        assert (before, sum(pools.launches.values())) == (5, 6)

    asked()
