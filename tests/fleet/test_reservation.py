"""A launch is durable before its cloud is called, however long the store takes."""

import asyncio

import pytest
from structlog.testing import LogCapture

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.events import Wake
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import LaunchId, Policy, Record, State
from tests.fakes.store import FaultyStore
from tests.fleet.pools import until
from tests.fleet.rig import Deployment
from tests.slots import SLOT
from tests.virtual_time import LoopClock, in_virtual_time

TAKES_S = 5.0


class RemoteStore(FaultyStore):
    """A store over a network: a reservation takes 5 s.

    ``reserved``: the launches that became durable. ``answers``: whether the store
    answers at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reserve_s = TAKES_S
        self.reserved: list[LaunchId | None] = []
        self.answers = True

    async def reserve(self, slot: str, launch: Record, transition: Transition) -> None:
        await super().reserve(slot, launch, transition)
        self.reserved.append(launch.launch_id)
        if not self.answers:
            await asyncio.sleep(1e9)


class RemoteDeployment(Deployment):
    """A deployment on a remote store."""

    store: RemoteStore

    def __init__(self) -> None:
        policy = Policy(idle_timeout_s=300, backoff_s=2.0)
        super().__init__(policy, store=RemoteStore())

    def stored(self) -> Record:
        record = self.store.get(SLOT)
        assert record is not None
        return record


@in_virtual_time
async def test_cloud_and_client_hear_of_a_launch_only_once_it_is_durable() -> None:
    deployment = RemoteDeployment()
    asked = asyncio.ensure_future(deployment.pool.lease("m", wait_s=0.0))
    await asyncio.sleep(TAKES_S - 0.1)

    assert "start" not in deployment.cloud.calls
    assert not asked.done()
    assert deployment.record.launch_id is None
    assert await asked is None
    assert deployment.state is State.STARTING
    assert deployment.stored().launch_id == deployment.record.launch_id
    await until(lambda: deployment.state is State.READY)
    assert deployment.cloud.launches == 1
    await deployment.pool.aclose()


@in_virtual_time
async def test_wishes_that_come_meanwhile_join_the_one_launch() -> None:
    deployment = RemoteDeployment()
    asked = []
    for _ in range(50):
        asked.append(asyncio.ensure_future(deployment.pool.lease("m", wait_s=60.0)))
        asked.append(asyncio.ensure_future(deployment.pool.lease("m", wait_s=0.0)))
        await asyncio.sleep(0.05)
    order = asyncio.ensure_future(deployment.pool.wake(forced=True))
    leases = await asyncio.gather(*asked)
    await order

    assert len(deployment.store.reserved) == 1
    assert deployment.cloud.launches == 1
    assert sum(lease is not None for lease in leases) == 50
    for lease in leases:
        if lease is not None:
            lease.release()
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_stop_meanwhile_withdraws_the_launch_and_ends_every_wait() -> None:
    deployment = RemoteDeployment()
    asked = asyncio.ensure_future(deployment.pool.lease("m", wait_s=600.0))
    await asyncio.sleep(1.0)
    deployment.pool.stop()
    async with asyncio.timeout(TAKES_S):
        assert await asked is None

    assert deployment.state is State.COLD
    assert deployment.stored().launch_id is None
    await asyncio.sleep(100.0)
    assert "start" not in deployment.cloud.calls
    told = [(one.before, one.after, one.event) for one in deployment.store.journal()]
    assert told == [
        ("starting", "cold", "StopRequested"),
        ("cold", "starting", "Wake"),
    ]
    await deployment.restart()
    await asyncio.sleep(100.0)
    assert "start" not in deployment.cloud.calls
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_wish_after_the_stop_renews_it() -> None:
    deployment = RemoteDeployment()
    first = asyncio.ensure_future(deployment.pool.lease("m", wait_s=600.0))
    await asyncio.sleep(1.0)
    deployment.pool.stop()
    await asyncio.sleep(1.0)
    later = asyncio.ensure_future(deployment.pool.lease("m", wait_s=600.0))

    assert await first is None
    lease = await later
    assert lease is not None
    assert deployment.cloud.launches == 1
    lease.release()
    await deployment.pool.aclose()


@in_virtual_time
async def test_what_can_not_be_written_is_told_to_all_and_tried_anew_by_the_next() -> (
    None
):
    deployment = RemoteDeployment()
    deployment.store.is_full = True
    asked = [
        asyncio.ensure_future(deployment.pool.lease("m", wait_s=60.0)) for _ in range(3)
    ]
    told = await asyncio.gather(*asked, return_exceptions=True)

    assert [str(one) for one in told] == ["the state can't be written: disk full"] * 3
    assert deployment.state is State.COLD
    assert "start" not in deployment.cloud.calls
    with pytest.raises(StoreError):
        await deployment.pool.wake(forced=True)
    deployment.store.is_full = False
    lease = await deployment.pool.lease("m", wait_s=60.0)
    assert lease is not None
    lease.release()
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_failure_that_nobody_waits_for_any_more_is_no_noise() -> None:
    deployment = RemoteDeployment()
    deployment.store.is_full = True
    asked = asyncio.ensure_future(deployment.pool.lease("m", wait_s=60.0))
    await asyncio.sleep(1.0)
    asked.cancel()
    await asyncio.sleep(100.0)

    assert not deployment.controller.is_reserving
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_client_that_leaves_takes_the_launch_from_nobody() -> None:
    deployment = RemoteDeployment()
    first = asyncio.ensure_future(deployment.pool.lease("m", wait_s=60.0))
    await asyncio.sleep(1.0)
    second = asyncio.ensure_future(deployment.pool.lease("m", wait_s=60.0))
    await asyncio.sleep(1.0)
    first.cancel()
    lease = await second

    assert lease is not None
    assert len(deployment.store.reserved) == deployment.cloud.launches == 1
    lease.release()
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_launch_begins_although_its_only_client_left() -> None:
    deployment = RemoteDeployment()
    asked = asyncio.ensure_future(deployment.pool.lease("m", wait_s=60.0))
    await asyncio.sleep(1.0)
    asked.cancel()
    await until(lambda: deployment.state is State.READY)

    assert deployment.cloud.launches == 1
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_process_killed_before_the_answer_neither_forgets_nor_buys_twice() -> (
    None
):
    """It is durable, the answer was lost, the cloud was not called: the next one is."""
    deployment = RemoteDeployment()
    deployment.store.answers = False
    asked = asyncio.ensure_future(deployment.pool.lease("m", wait_s=60.0))
    await until(lambda: bool(deployment.store.reserved))
    [launch_id] = deployment.store.reserved
    await deployment.restart()
    with pytest.raises(StoreError, match="the proxy ends"):
        await asked
    deployment.store.answers = True
    assert await deployment.pool.lease("m", wait_s=0.0) is None
    await until(lambda: deployment.state is State.READY)

    assert deployment.record.launch_id == launch_id
    assert list(deployment.cloud.instances) == [launch_id]
    assert deployment.cloud.launches == 1
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_process_killed_before_it_is_durable_leaves_nothing() -> None:
    deployment = RemoteDeployment()
    asked = asyncio.ensure_future(deployment.pool.lease("m", wait_s=60.0))
    await asyncio.sleep(TAKES_S / 2)
    await deployment.restart()
    with pytest.raises(StoreError, match="the proxy ends"):
        await asked
    await asyncio.sleep(100.0)

    assert deployment.state is State.COLD
    assert "start" not in deployment.cloud.calls
    await deployment.pool.aclose()


@in_virtual_time
async def test_what_begins_is_what_is_on_record_if_a_pause_ends_meanwhile() -> None:
    deployment = RemoteDeployment()
    soon = LoopClock().now() + 3.0
    cooling = Record(State.COOLDOWN, failures=1, retry_at=soon)
    deployment.store.put(SLOT, cooling, None)
    await deployment.restart()
    await deployment.pool.wake(forced=True)

    assert len(deployment.store.reserved) == 2
    assert deployment.stored() == deployment.record
    await until(lambda: deployment.state is State.READY)
    assert deployment.cloud.launches == 1
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_request_that_only_joins_waits_for_what_is_being_written() -> None:
    deployment = RemoteDeployment()
    asked = asyncio.ensure_future(deployment.pool.lease("m", wait_s=0.0))
    await asyncio.sleep(1.0)
    lease = await deployment.pool.lease("m", wait_s=60.0, joins=True)

    assert lease is not None
    assert await asked is None
    lease.release()
    await deployment.pool.aclose()


@in_virtual_time
async def test_no_event_begins_a_launch_that_is_not_reserved(
    errors_logged: LogCapture,
) -> None:
    deployment = RemoteDeployment()
    deployment.controller.apply(Wake(LaunchId("l1")))
    await asyncio.sleep(100.0)

    assert deployment.state is State.COLD
    assert "start" not in deployment.cloud.calls
    assert "not reserved" in errors_logged.entries.pop()["error"]
    await deployment.pool.aclose()
