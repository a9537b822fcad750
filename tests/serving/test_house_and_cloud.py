"""A pool with nodes and instances of ours, on real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.hub import HubBackend
from ollama_proxy.core.access.keys import Rights
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.fleet.backend import Backend
from tests.fakes.callers import Callers, bearer
from tests.fakes.instance import InProcessBackend
from tests.fleet.houses import a_node
from tests.proxy import RunningProxy, generate, running_proxy

ONE_POOL = """
hub = true
hub_listen = "off"
models = ["large"]

[offers.house]
backend = "hub"

[offers.cloud]
backend = "local"
slots = 2

[pools.all]
offers = ["house", "cloud"]
spill_after = "1s"
"""
TWO_POOLS = """
hub = true
hub_listen = "off"

[offers.house]
backend = "hub"

[pools.large]
models = ["*:70b"]

[pools.small]
"""


@contextlib.asynccontextmanager
async def proxy_of(
    folder: Path, text: str, **env: Any
) -> AsyncIterator[tuple[RunningProxy, InProcessBackend, InProcessBackend]]:
    """Run a proxy; return it, its cloud, and the machines that may be nodes."""
    file = folder / "ollama-proxy.toml"
    file.write_text(text)
    cloud = InProcessBackend(models=("tiny", "large"))
    machines = InProcessBackend(models=("tiny", "large"))
    backends: dict[str, Backend] = {"house": HubBackend(Labels())}
    if "offers.cloud" in text:
        backends["cloud"] = cloud
    settings: dict[str, Any] = {"OLLAMA_PROXY_HOLD": "60s", **env}
    try:
        async with running_proxy(
            folder, backends=backends, file=file, **settings
        ) as proxy:
            yield proxy, cloud, machines
    finally:
        await machines.aclose()


async def add_node(
    proxy: RunningProxy, machines: InProcessBackend, node_id: str, **facts: Any
) -> None:
    await machines.start(LaunchId(node_id))
    seen = await machines.inspect(LaunchId(node_id))
    facts = {"models": ("tiny",), "upstream": seen.upstream} | facts
    for services in proxy.parts.pools:
        for house in services.pool.houses:
            house.put(a_node(node_id, **facts))


async def asked(proxy: RunningProxy, model: str, **more: Any) -> int:
    body = generate(model=model, stream=False, **more)
    async with proxy.session.post(f"{proxy.url}/api/generate", json=body) as reply:
        await reply.read()
        return reply.status


async def test_what_no_node_has_is_answered_by_the_cloud(tmp_path: Path) -> None:
    async with proxy_of(tmp_path, ONE_POOL) as (proxy, cloud, machines):
        await add_node(proxy, machines, "attic")
        first = await asked(proxy, "tiny")
        launches = cloud.launches
        second = await asked(proxy, "large")
        after = cloud.launches
        unknown = await asked(proxy, "other")
        async with proxy.session.get(f"{proxy.url}/api/tags") as reply:
            names = sorted(one["name"] for one in (await reply.json())["models"])

    assert (first, launches) == (200, 0)
    assert (second, after) == (200, 1)
    assert unknown == 404
    assert names == ["large:latest", "tiny:latest"]


async def test_without_any_node_the_cloud_answers(tmp_path: Path) -> None:
    async with proxy_of(tmp_path, ONE_POOL) as (proxy, cloud, _):
        assert await asked(proxy, "other") == 404
        assert cloud.launches == 0
        assert await asked(proxy, "large") == 200
        assert cloud.launches == 1


async def test_a_crowd_is_answered_by_the_house_and_a_cloud_that_leaves(
    tmp_path: Path,
) -> None:
    async with proxy_of(tmp_path, ONE_POOL) as (proxy, cloud, machines):
        await add_node(proxy, machines, "attic", models=("tiny", "large"))
        machines.manners.rate = 8.0
        statuses = await asyncio.gather(*(asked(proxy, "large") for _ in range(12)))
        await proxy.until(lambda: cloud.running == 0)

    assert set(statuses) == {200}
    assert cloud.launches == 1


async def test_a_model_of_one_pool_is_no_model_of_another_on_the_same_node(
    tmp_path: Path,
) -> None:
    async with proxy_of(tmp_path, TWO_POOLS) as (proxy, _, machines):
        await add_node(proxy, machines, "attic", models=("tiny", "big:70b"))
        async with proxy.session.get(f"{proxy.url}/api/tags") as reply:
            listed = sorted(one["name"] for one in (await reply.json())["models"])
        status = await asked(proxy, "tiny")
        pools = (await proxy.status())["pools"]

    assert listed == ["big:70b", "tiny:latest"]
    assert status == 200
    assert [one["ready"] for one in pools] == [1, 1]


@pytest.mark.parametrize("text", [ONE_POOL, TWO_POOLS])
async def test_a_key_sees_and_uses_its_models_on_nodes_alone(
    tmp_path: Path, text: str
) -> None:
    callers = Callers(ci=Rights(models=("tiny",)))
    async with proxy_of(tmp_path, text, identify=callers) as (proxy, _, machines):
        await add_node(proxy, machines, "attic", models=("tiny", "other", "big:70b"))

        async def got(path: str) -> Any:
            url = f"{proxy.url}{path}"
            async with proxy.session.get(url, headers=bearer("ci")) as reply:
                return await reply.json()

        tags, openai, loaded = (
            await got("/api/tags"),
            await got("/v1/models"),
            await got("/api/ps"),
        )

    assert [one["name"] for one in tags["models"]] == ["tiny:latest"]
    assert [one["id"] for one in openai["data"]] == ["tiny:latest"]
    assert loaded == {"models": []}


async def test_a_model_of_nodes_that_are_away_is_said_to_be_away(
    tmp_path: Path,
) -> None:
    async with proxy_of(tmp_path, ONE_POOL, OLLAMA_PROXY_HOLD="0") as (
        proxy,
        cloud,
        machines,
    ):
        await add_node(proxy, machines, "attic", takes_work=False, is_draining=True)
        body = generate(stream=False)
        async with proxy.session.post(f"{proxy.url}/api/generate", json=body) as reply:
            told = reply.status, (await reply.json())["error"]

    assert told == (
        503,
        "no node that has the model 'tiny' takes requests: attic is draining",
    )
    assert cloud.launches == 0
