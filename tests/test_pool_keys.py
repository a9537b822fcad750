"""Keys before two pools: what they see and may ask, whichever pool is awake."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.core.access.keys import Rights
from ollama_proxy.core.access.route_classes import RouteClass
from tests.config.rig import toml
from tests.fakes.callers import Callers, bearer
from tests.fakes.instance import InProcessBackend
from tests.pool_settings import TWO_POOLS
from tests.proxy import RunningProxy, running_proxy

ALL = frozenset(RouteClass)
CALLERS = Callers(
    ci=Rights(models=("big*",), routes=ALL),
    guest=Rights(models=("*:3b",), routes=ALL, may_wake=False),
)
MODELS = {"ci": "big:70b", "guest": "small:3b"}


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[RunningProxy]:
    big = InProcessBackend(models=["big:70b"])
    small = InProcessBackend(models=["small:3b", "small:7b"])
    async with running_proxy(
        tmp_path / "state",
        file=toml(tmp_path, TWO_POOLS),
        backends={"one": big, "two": small},
        identify=CALLERS,
    ) as running:
        yield running


def state(proxy: RunningProxy, pool: str) -> str:
    (controller,) = proxy.parts.pools[pool].pool.controllers
    return controller.record.state.value


async def wake(proxy: RunningProxy, *pools: str) -> None:
    for pool in pools:
        await proxy.parts.pools[pool].pool.wake()
    await proxy.until(lambda: all(state(proxy, pool) == "ready" for pool in pools))


async def rest(proxy: RunningProxy, pool: str) -> None:
    proxy.parts.pools[pool].pool.stop()
    await proxy.until(lambda: state(proxy, pool) == "cold")


async def ask(
    proxy: RunningProxy, who: str, path: str, body: Any = None, **fields: str
) -> tuple[int, Any]:
    data = None if body is None else io.BytesIO(json.dumps(body).encode())
    async with proxy.session.request(
        "GET" if body is None else "POST",
        f"{proxy.url}{path}",
        data=data,
        headers={**bearer(who), **fields},
    ) as answer:
        return answer.status, json.loads(await answer.read())


def names(body: Any) -> list[str]:
    entries = body.get("models") or body.get("data") or []
    return [entry.get("name") or entry["id"] for entry in entries]


@pytest.mark.parametrize("awake", [(), ("small",), ("big",), ("big", "small")])
@pytest.mark.parametrize("who", MODELS)
async def test_lists_of_all_pools_show_what_the_key_may_use(
    proxy: RunningProxy, awake: tuple[str, ...], who: str
) -> None:
    await wake(proxy, "big", "small")
    known = [one.catalogue for one in proxy.parts.pools]
    await proxy.until(lambda: all(one.contents for one in known))
    for pool in {"big", "small"} - {*awake}:
        await rest(proxy, pool)

    for path in ("/api/tags", "/v1/models"):
        _, told = await ask(proxy, who, path)
        assert names(told) == [MODELS[who]]
        own = "big" if who == "ci" else "small"
        for pool in ("big", "small"):
            _, told = await ask(proxy, who, path, **{"X-Ollama-Proxy-Pool": pool})
            assert names(told) == ([MODELS[who]] if pool == own else [])


@pytest.mark.parametrize("refused", ["small:3b", "none:such"])
async def test_a_model_of_another_pool_is_refused_before_any_is_woken(
    proxy: RunningProxy, refused: str
) -> None:
    status, told = await ask(
        proxy, "ci", "/api/generate", {"model": refused, "prompt": "hi"}
    )
    shown, _ = await ask(proxy, "ci", "/api/show", {"model": refused})

    assert (status, shown) == (403, 404)
    assert f"may not use the model {refused!r}, but: big*" in told["error"]
    assert (state(proxy, "big"), state(proxy, "small")) == ("cold", "cold")


async def test_a_request_of_a_key_lands_in_the_pool_of_its_model(
    proxy: RunningProxy,
) -> None:
    body = {"model": "big:70b", "prompt": "hi", "stream": False}
    status, _ = await ask(proxy, "ci", "/api/generate", body, Prefer="wait=60")

    assert status == 200
    assert (state(proxy, "big"), state(proxy, "small")) == ("ready", "cold")


async def test_a_key_that_may_not_wake_is_served_by_the_pool_that_is_awake(
    proxy: RunningProxy,
) -> None:
    body = {"model": "small:3b", "prompt": "hi", "stream": False}
    await wake(proxy, "big")
    asleep, told = await ask(proxy, "guest", "/api/generate", body)
    before = state(proxy, "small")
    await wake(proxy, "small")
    awake, _ = await ask(proxy, "guest", "/api/generate", body)

    assert (asleep, awake) == (503, 200)
    assert (told["status"], before) == ("asleep", "cold")
