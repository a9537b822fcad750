"""The proxy's own endpoints: metrics, health, journal, orders."""

from pathlib import Path

import pytest

from ollama_proxy.base.errors import ConflictError
from ollama_proxy.core.lifecycle.record import LaunchId
from tests.config.rig import toml
from tests.fakes.instance import InProcessBackend
from tests.pool_settings import TWO_POOLS
from tests.proxy import ORDERS, generate, running_proxy


async def test_health_is_good_with_and_without_an_instance(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        async with proxy.session.get(f"{proxy.url}/healthz") as reply:
            assert (reply.status, await reply.json()) == (200, {"status": "ok"})
        await proxy.wake()
        async with proxy.session.get(f"{proxy.url}/healthz") as reply:
            assert reply.status == 200


async def test_metrics_show_zero_from_the_start_and_then_count(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:

        async def metrics() -> str:
            async with proxy.session.get(f"{proxy.url}/metrics") as reply:
                assert reply.headers["Content-Type"].startswith("text/plain")
                return await reply.text()

        line = 'ollama_proxy_requests_total{kind="inference",outcome="provisioning"}'
        assert f"{line} 0.0" in await metrics()
        async with proxy.session.post(f"{proxy.url}/api/generate", json=generate()):
            pass
        await proxy.until(lambda: proxy.state == "ready")
        text = await metrics()

        assert f"{line} 1.0" in text
        assert "ollama_proxy_instances_ready 1.0" in text
        assert 'ollama_proxy_instance_transitions_total{state="ready"} 1.0' in text
        assert "ollama_proxy_instance_start_duration_seconds_count 1.0" in text


async def test_the_journal_tells_the_transitions(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        async with proxy.session.get(f"{proxy.url}/-/journal", headers=ORDERS) as reply:
            lines = (await reply.json())["transitions"]

        assert [line["after"] for line in lines] == ["ready", "starting"]


@pytest.mark.parametrize("order", ["wake", "stop", "sweep"])
async def test_orders_are_not_taken_from_web_pages(tmp_path: Path, order: str) -> None:
    backend = InProcessBackend()
    async with (
        running_proxy(tmp_path, backend=backend) as proxy,
        proxy.session.post(
            f"{proxy.url}/-/{order}", headers={"Origin": "https://evil.example"}
        ) as reply,
    ):
        assert reply.status == 403
        assert backend.launches == 0


async def test_our_own_faults_are_told_in_the_callers_words(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        proxy.store._db.execute("PRAGMA query_only = ON")
        async with proxy.session.post(
            f"{proxy.url}/v1/chat/completions",
            json={"model": "tiny", "messages": [{"role": "user", "content": "hi"}]},
        ) as reply:
            said = await reply.json()

        assert reply.status == 500
        assert reply.headers["X-Ollama-Proxy"] == "store"
        assert "the state can't be written" in said["error"]["message"]
        proxy.store._db.execute("PRAGMA query_only = OFF")


@pytest.mark.parametrize("order", ["wake", "sweep", "sweep?dry_run=1"])
async def test_orders_while_the_proxy_deploys_are_refused_until_afterwards(
    tmp_path: Path, order: str
) -> None:
    async with running_proxy(tmp_path, backend=InProcessBackend()) as proxy:
        with proxy.parts.pool.held_back():
            async with proxy.session.post(
                f"{proxy.url}/-/{order}", headers=ORDERS
            ) as reply:
                said = (reply.status, await reply.json())
        async with proxy.session.post(
            f"{proxy.url}/-/{order}", headers=ORDERS
        ) as again:
            assert again.status == 200

    what = order.partition("?")[0]
    told = f"the proxy deploys or deletes; {what} afterwards"
    assert said == (409, {"error": told})


class UnreachableCloud(InProcessBackend):
    """A cloud that refuses each list as in use."""

    async def owned(self) -> list[LaunchId]:
        raise ConflictError("the machine is leased to somebody")


async def test_a_cloud_that_refuses_a_sweep_is_told_as_a_cloud(tmp_path: Path) -> None:
    async with (
        running_proxy(tmp_path, backend=UnreachableCloud()) as proxy,
        proxy.session.post(f"{proxy.url}/-/sweep", headers=ORDERS) as reply,
    ):
        said = (reply.status, (await reply.json())["error"])

    told = "the cloud did not list our instances: the machine is leased to"
    assert said == (502, f"{told} somebody")


async def test_a_cloud_that_refuses_a_sweep_keeps_it_from_no_other_pool(
    tmp_path: Path,
) -> None:
    refusing, other = UnreachableCloud(), InProcessBackend()
    file = toml(tmp_path, TWO_POOLS)
    async with running_proxy(
        tmp_path / "state", file=file, backends={"one": refusing, "two": other}
    ) as proxy:
        await other.start(LaunchId("stray"))
        async with proxy.session.post(f"{proxy.url}/-/sweep", headers=ORDERS) as reply:
            assert reply.status == 502

        assert other.running == 0
