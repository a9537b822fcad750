"""Orders to a pool: wake, stop, abandon."""

from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.core.access.keys import Caller, Key, KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.lifecycle.record import State
from tests.fakes.instance import InProcessBackend
from tests.fakes.priced import PricedBackend
from tests.proxy import ORDERS, RunningProxy, running_proxy


async def order(proxy: RunningProxy, path: str, **headers: str) -> tuple[int, Any]:
    async with proxy.session.post(proxy.url + path, headers=ORDERS | headers) as reply:
        is_json = reply.content_type == "application/json"
        return reply.status, await (reply.json() if is_json else reply.text())


async def test_an_order_may_name_the_pool(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        status, body = await order(proxy, "/-/wake?pool=default")
        assert (status, body["instance_status"]) == (200, "starting")
        await proxy.until(lambda: proxy.state == "ready")

        status, _ = await order(proxy, "/-/stop?pool=default")

        assert status == 200
        await proxy.until(lambda: proxy.state == "cold")


@pytest.mark.parametrize(
    "path", ["/-/wake?pool=big", "/-/stop?pool=", "/-/stop?pool=x"]
)
async def test_an_unknown_pool_is_named_with_those_there_are(
    tmp_path: Path, path: str
) -> None:
    async with running_proxy(tmp_path) as proxy:
        status, body = await order(proxy, path)

        name = path.partition("=")[2]
        assert status == 404
        assert body == {"error": f"no pool is named {name!r}; there are default"}
        assert proxy.state == "cold"


async def test_a_launch_without_an_outcome_is_abandoned(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=60.0)
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await order(proxy, "/-/wake")
        launch_id = proxy.parts.pool.controllers[0].record.launch_id

        status, body = await order(proxy, f"/-/abandon?launch={launch_id}")

        assert status == 200
        assert proxy.parts.pool.controllers[0].record.launch_id is None
        assert body["pools"][0]["instances"][0]["launch_id"] is None
        async with proxy.session.get(f"{proxy.url}/-/journal", headers=ORDERS) as reply:
            assert (await reply.json())["transitions"][0]["event"] == "Abandoned"


async def test_an_instance_that_serves_is_not_abandoned(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        record = proxy.parts.pool.controllers[0].record

        status, body = await order(proxy, f"/-/abandon?launch={record.launch_id}")

        assert status == 409
        assert "is ready" in body["error"]
        assert proxy.parts.pool.controllers[0].record.state is State.READY


async def test_an_unknown_launch_is_not_abandoned(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        for query in ("?launch=nothing", "?launch=", ""):
            status, body = await order(proxy, f"/-/abandon{query}")

            assert status == 404
            assert "no launch" in body["error"]


async def test_web_pages_abandon_nothing(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        path, origin = "/-/abandon?launch=x", "https://evil.example"
        assert (await order(proxy, path, Origin=origin))[0] == 403


async def test_a_plan_tells_its_reasons(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        async with proxy.session.get(f"{proxy.url}/-/plan", headers=ORDERS) as reply:
            (asleep,) = (await reply.json())["pools"]
        await proxy.wake()
        async with proxy.session.get(
            f"{proxy.url}/-/plan?pool=default", headers=ORDERS
        ) as reply:
            (awake,) = (await reply.json())["pools"]
        async with proxy.session.get(
            f"{proxy.url}/-/plan?pool=x", headers=ORDERS
        ) as reply:
            assert reply.status == 404

    assert (asleep["name"], asleep["wanted"], asleep["ready"]) == ("default", 0, 0)
    assert "No instance runs." in asleep["plan"]
    assert (awake["wanted"], awake["ready"]) == (1, 1)
    assert any("assumed until measured" in line for line in awake["plan"])


async def test_metrics_tell_of_each_pool_and_offer_from_the_start(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:

        async def metrics() -> str:
            async with proxy.session.get(f"{proxy.url}/metrics") as reply:
                return await reply.text()

        before = await metrics()
        await proxy.wake()
        after = await metrics()

    lead = "ollama_proxy_"
    for line, was, is_now in (
        ('pool_instances_ready{pool="default"}', "0.0", "1.0"),
        ('pool_instances_wanted{pool="default"}', "0.0", "1.0"),
        ('pool_requests_waiting{pool="default"}', "0.0", "0.0"),
        ('pool_requests_in_flight{pool="default"}', "0.0", "0.0"),
        ('offer_state{offer="local",pool="default",state="open"}', "1.0", "1.0"),
        ('offer_state{offer="local",pool="default",state="off"}', "0.0", "0.0"),
        ('launches_total{offer="local",outcome="ready",pool="default"}', "0.0", "1.0"),
        ('launches_total{offer="local",outcome="failed",pool="default"}', "0.0", "0.0"),
    ):
        assert f"{lead}{line} {was}\n" in before
        assert f"{lead}{line} {is_now}\n" in after


def spender(**rights: Any) -> Caller:
    routes = frozenset({RouteClass.ADMIN})
    key = Key(KeyId("0a1b2c3d"), "ci", b"", Rights(routes=routes, **rights))
    return Caller("127.0.0.1", key, is_admin=True)


async def test_a_key_that_gives_orders_wakes_nothing_beyond_its_budget(
    tmp_path: Path,
) -> None:
    caller = spender(budget_day=10_000)
    async with running_proxy(
        tmp_path, backend=PricedBackend(), identify=lambda _: caller
    ) as proxy:
        assert (await order(proxy, "/-/wake"))[0] == 200
        await proxy.until(lambda: proxy.state == "ready")
        assert caller.key is not None
        spent = proxy.parts.gateway.limits.spending.totals(caller.key)[0]
        assert spent >= 1800 * 1000  # the idle time-out is reserved
        assert (await order(proxy, "/-/stop"))[0] == 200
        await proxy.until(lambda: proxy.state == "cold")
        caller = spender(budget_day=0)
        status, body = await order(proxy, "/-/wake")

        assert status == 429
        assert "may spend 0.00 a day" in body["error"]
        assert proxy.state == "cold"


async def test_a_key_that_may_not_wake_wakes_nothing_by_an_order_either(
    tmp_path: Path,
) -> None:
    caller = spender(may_wake=False)
    async with running_proxy(tmp_path, identify=lambda _: caller) as proxy:
        status, body = await order(proxy, "/-/wake")

        assert (status, proxy.state) == (403, "cold")
        assert body["error"] == "the key 'ci' may not start an instance"
        assert (await order(proxy, "/-/stop"))[0] == 200


async def test_an_order_of_a_key_with_a_budget_needs_a_price(tmp_path: Path) -> None:
    caller, backend = spender(budget_month=10**9), PricedBackend(None)
    async with running_proxy(
        tmp_path, backend=backend, identify=lambda _: caller
    ) as proxy:
        status, body = await order(proxy, "/-/wake")
        assert status == 429
        assert "set its price_per_hour" in body["error"]
        caller = spender()
        assert (await order(proxy, "/-/wake"))[0] == 200
