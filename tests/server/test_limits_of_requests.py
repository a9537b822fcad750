"""What requests of a key with limits count, however they end, on both ways in."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ollama_proxy.core.access.keys import Key, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.simulator.faults import HEADER as FAULT
from ollama_proxy.simulator.server import Manners
from tests.fakes.callers import WAYS, Callers, bearer, by_way
from tests.fakes.instance import InProcessBackend
from tests.fakes.priced import PricedBackend
from tests.proxy import RunningProxy, generate, running_proxy

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
LIMIT = 10**6
ROUTES = frozenset(RouteClass)
EVERY = Rights(routes=ROUTES, rpm=1000, parallel=10, tokens_per_day=LIMIT)


@pytest.fixture
def backend() -> InProcessBackend:
    return InProcessBackend(Manners())


@pytest.fixture
async def proxy(
    tmp_path: Path, backend: InProcessBackend
) -> AsyncIterator[RunningProxy]:
    async with running_proxy(
        tmp_path, backend=backend, identify=Callers(ci=EVERY)
    ) as running:
        yield running


def key_of(rights: Rights) -> Key:
    return Callers(ci=rights).keys["ci"]


CI = key_of(EVERY)


async def ask(
    proxy: RunningProxy, path: str, body: Any, way: str, **more: str
) -> tuple[int, bytes]:
    async with proxy.session.post(
        f"{proxy.url}{path}", json=body, headers=by_way(way, **more)
    ) as answer:
        return answer.status, await answer.read()


def tokens(proxy: RunningProxy) -> int:
    return proxy.tokens_of(CI)


async def settled(proxy: RunningProxy) -> int:
    limits = proxy.parts.gateway.limits
    await proxy.until(lambda: limits.in_flight(CI.id) == 0)
    return tokens(proxy)


@WAYS
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/api/chat", {"options": {"num_predict": 7}}),
        ("/v1/chat/completions", {"max_tokens": 7}),
        ("/v1/messages", {"max_tokens": 7}),
    ],
)
async def test_an_answer_counts_as_the_instance_counted_it(
    proxy: RunningProxy, way: str, path: str, limit: dict[str, Any], stream: bool
) -> None:
    await proxy.wake()
    body = {**CHAT, **limit, "stream": stream}
    status, _ = await ask(proxy, path, body, way)

    assert status == 200
    assert 7 <= await settled(proxy) <= 40  # a stream of OpenAI's is estimated


@WAYS
async def test_an_answer_reserves_while_it_runs_and_grows(
    proxy: RunningProxy, backend: InProcessBackend, way: str
) -> None:
    await proxy.wake()
    backend.simulator.manners.rate = 100.0
    body = generate(options={"num_predict": -1}, prompt="tell me everything")
    asking = asyncio.ensure_future(ask(proxy, "/api/generate", body, way))
    await proxy.until(lambda: tokens(proxy) > 512)

    asking.cancel()
    assert await settled(proxy) < 512


@WAYS
@pytest.mark.parametrize("fault", ["status=500", "status=503", "status=429"])
async def test_a_request_that_an_instance_failed_counts_no_tokens(
    proxy: RunningProxy, way: str, fault: str
) -> None:
    await proxy.wake()
    await ask(proxy, "/api/generate", generate(stream=False), way, **{FAULT: fault})

    assert await settled(proxy) == 0


@WAYS
async def test_an_answer_that_breaks_off_counts_what_it_brought(
    proxy: RunningProxy, way: str
) -> None:
    await proxy.wake()
    body = generate(prompt="tell me everything", options={"num_predict": 400})
    with contextlib.suppress(aiohttp.ClientError):
        await ask(proxy, "/api/generate", body, way, **{FAULT: "reset_after=20"})

    assert 20 <= await settled(proxy) < 100


@WAYS
async def test_a_request_that_is_refused_counts_nothing(
    proxy: RunningProxy, way: str
) -> None:
    status, _ = await ask(proxy, "/api/generate", {"model": ""}, way)

    assert status in {400, 404}
    assert await settled(proxy) == 0


@WAYS
async def test_a_request_that_finds_nothing_awake_counts_no_tokens(
    proxy: RunningProxy, way: str
) -> None:
    status, _ = await ask(proxy, "/api/generate", generate(), way)

    assert status == 503
    assert await settled(proxy) == 0


async def test_a_request_that_another_server_takes_over_counts_once(
    tmp_path: Path, backend: InProcessBackend
) -> None:
    rights = Rights(rpm=1, parallel=1, tokens_per_day=LIMIT)
    async with running_proxy(
        tmp_path, backend=backend, identify=Callers(ci=rights)
    ) as proxy:
        status, _ = await ask(
            proxy, "/api/generate", generate(), "plain", Prefer="wait=60"
        )

    assert status == 200


@WAYS
async def test_each_familys_refusal_says_what_is_used_up(
    tmp_path: Path, backend: InProcessBackend, way: str
) -> None:
    rights = Rights(tokens_per_day=0)
    async with running_proxy(
        tmp_path, backend=backend, identify=Callers(ci=rights)
    ) as proxy:
        native = await ask(proxy, "/api/chat", CHAT, way)
        openai = await ask(proxy, "/v1/chat/completions", CHAT, way)
        anthropic = await ask(proxy, "/v1/messages", {**CHAT, "max_tokens": 5}, way)
        assert proxy.state == "cold"

    assert {status for status, _ in (native, openai, anthropic)} == {429}
    told = json.loads(native[1])["error"]
    assert told.startswith("the key 'ci' may use 0 tokens a day, and 0 are used")
    assert "the limit is free again at " in told
    assert json.loads(openai[1])["error"]["code"] == "insufficient_quota"
    assert json.loads(anthropic[1])["error"]["type"] == "rate_limit_error"


# Money.


@WAYS
async def test_a_request_reserves_what_it_wakes_and_pays_for_its_time(
    tmp_path: Path, way: str
) -> None:
    rights = Rights(budget_day=10**9, budget_month=10**9)
    backend = PricedBackend(3600.0)  # a second costs a million
    async with running_proxy(
        tmp_path,
        backend=backend,
        identify=Callers(ci=rights, other=rights),
        OLLAMA_PROXY_IDLE_TIMEOUT="60s",
    ) as proxy:
        spending = proxy.parts.gateway.limits.spending
        status, _ = await ask(proxy, "/api/generate", generate(stream=False), way)
        assert status == 503
        assert spending.totals(key_of(rights))[0] >= 60 * 10**6
        await proxy.until(lambda: proxy.state == "ready")
        status, _ = await ask(proxy, "/api/generate", generate(stream=False), way)
        assert status == 200
        await proxy.stop()
        day, month = spending.totals(key_of(rights))

    assert day == month
    assert 0 < day < 60 * 10**6


@WAYS
async def test_a_spent_budget_wakes_nothing(tmp_path: Path, way: str) -> None:
    async with running_proxy(
        tmp_path, backend=PricedBackend(), identify=Callers(ci=Rights(budget_day=0))
    ) as proxy:
        status, told = await ask(proxy, "/v1/chat/completions", CHAT, way)
        assert (status, proxy.state) == (429, "cold")
        assert b"may spend 0.00 a day" in told


@WAYS
async def test_an_offer_without_a_price_wakes_nothing_for_a_budget(
    tmp_path: Path, way: str
) -> None:
    async with running_proxy(
        tmp_path,
        backend=PricedBackend(None),
        identify=Callers(ci=Rights(budget_month=10**9)),
    ) as proxy:
        status, told = await ask(proxy, "/api/chat", CHAT, way)

        assert (status, proxy.state) == (429, "cold")
        assert b"the price of the offer 'local' is not known" in told


@WAYS
@pytest.mark.parametrize("path", ["/api/generate", "/api/pull"])
async def test_the_time_of_a_request_is_paid_by_its_key_and_not_by_the_waker(
    tmp_path: Path, way: str, path: str
) -> None:
    rights = Rights(routes=ROUTES, budget_day=10**9)
    callers, backend = Callers(waker=rights, ci=rights), PricedBackend(3600.0)
    async with running_proxy(tmp_path, backend=backend, identify=callers) as proxy:
        spending = proxy.parts.gateway.limits.spending
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers=bearer("waker")
        ) as reply:
            assert reply.status == 503
        await proxy.until(lambda: proxy.state == "ready")
        delayed = {"X-Simulator-Fault": "delay=0.4"}
        body = generate(stream=False) if path == "/api/generate" else {"model": "new"}
        status, _ = await ask(proxy, path, body, way, **delayed)
        assert status == 200
        await proxy.stop()
        (ci, _), (waker, _) = (
            spending.totals(callers.keys[name]) for name in ("ci", "waker")
        )

    assert 400_000 <= ci < 60 * 10**6
    assert waker > 0
