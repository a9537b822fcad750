"""Keys that may not wake an instance, on both ways in and for every kind of request."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.access.keys import Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.simulator.server import Manners
from tests.config.rig import toml
from tests.fakes.callers import WAYS, Callers, bearer, by_way
from tests.fakes.instance import InProcessBackend
from tests.proxy import HURRIED, RunningProxy, generate, lines, running_proxy

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
ASKING: list[tuple[str, str, Any]] = [
    ("POST", "/api/generate", generate()),
    ("POST", "/api/chat", CHAT),
    ("POST", "/api/embed", {"model": "tiny", "input": "hi"}),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/responses", {"model": "tiny", "input": "hi"}),
    ("POST", "/v1/messages", {**CHAT, "max_tokens": 5}),
    ("POST", "/v1/embeddings", {"model": "tiny", "input": "hi"}),
    ("POST", "/api/pull", {"model": "new"}),
    ("POST", "/api/create", {"model": "new", "from": "tiny"}),
    ("POST", "/api/copy", {"source": "tiny", "destination": "new"}),
    ("DELETE", "/api/delete", {"model": "tiny"}),
    ("POST", "/v1/rerank", {"model": "tiny", "query": "hi"}),
]
ALL = frozenset(RouteClass)
SLEEPER = Rights(routes=ALL, may_wake=False)
TWO_INSTANCES = """
[offers.box]
backend = "local"
slots = 4
[pools.main]
models = ["*"]
offers = ["box"]
max_instances = 2
min_instances = 2
max_starting = 2
"""
PULL = {"model": "new"}


@pytest.fixture
def backend() -> InProcessBackend:
    return InProcessBackend(Manners(pull_s=0.5))


@pytest.fixture
async def proxy(
    tmp_path: Path, backend: InProcessBackend
) -> AsyncIterator[RunningProxy]:
    """A proxy before machines; ``ci`` may not wake one, nobody else has a key."""
    async with running_proxy(
        tmp_path,
        backend=backend,
        identify=Callers(ci=SLEEPER, ann=Rights(routes=ALL)),
        OLLAMA_PROXY_EXTRA_ROUTES="POST /v1/rerank",
        OLLAMA_PROXY_IDLE_TIMEOUT="1h",
    ) as running:
        yield running


async def ask(
    proxy: RunningProxy, method: str, path: str, body: Any, **fields: str
) -> tuple[int, bytes, Any]:
    async with proxy.session.request(
        method, f"{proxy.url}{path}", json=body, headers=fields
    ) as answer:
        return answer.status, await answer.read(), answer.headers


def record(proxy: RunningProxy) -> Any:
    return proxy.parts.pool.controllers[0].record


@WAYS
@pytest.mark.parametrize(("method", "path", "body"), ASKING)
async def test_asleep_the_key_is_told_that_it_may_not_wake(
    proxy: RunningProxy,
    backend: InProcessBackend,
    way: str,
    method: str,
    path: str,
    body: Any,
) -> None:
    status, told, fields = await ask(proxy, method, path, body, **by_way(way))

    assert status == 503
    assert b"the key 'ci' may not start one" in told
    assert (fields["X-Ollama-Proxy"], fields["x-should-retry"]) == ("asleep", "false")
    assert 1 <= int(fields["Retry-After"]) <= 60
    assert (proxy.state, backend.launches) == ("cold", 0)


@WAYS
async def test_each_protocol_has_the_words_in_its_own_shape(
    proxy: RunningProxy, way: str
) -> None:
    _, native, _ = await ask(proxy, *ASKING[0], **by_way(way))
    _, openai, _ = await ask(proxy, *ASKING[3], **by_way(way))
    _, anthropic, _ = await ask(proxy, *ASKING[5], **by_way(way))
    plain = json.loads(native)

    assert (plain["status"], plain["provisioning"]) == ("asleep", False)
    assert plain["retry_after"] is not None
    assert json.loads(openai)["error"]["code"] == "asleep"
    assert json.loads(openai)["error"]["message"] == plain["error"]
    assert json.loads(anthropic)["error"]["message"] == plain["error"]


@WAYS
@pytest.mark.parametrize("path", ["/api/tags", "/api/version", "/api/ps", "/v1/models"])
async def test_asleep_reads_are_answered_as_ever(
    proxy: RunningProxy, way: str, path: str
) -> None:
    status, _, _ = await ask(proxy, "GET", path, None, **by_way(way))

    assert status == 200
    assert proxy.state == "cold"


@WAYS
async def test_what_needs_no_instance_is_done_without_one(
    proxy: RunningProxy, way: str
) -> None:
    body = {"model": "tiny", "keep_alive": 0}
    status, told, _ = await ask(proxy, "POST", "/api/generate", body, **by_way(way))

    assert (status, json.loads(told)["done_reason"]) == (200, "unload")
    assert proxy.state == "cold"


@WAYS
async def test_a_wait_for_nothing_ends_at_once(proxy: RunningProxy, way: str) -> None:
    fields = by_way(way, Prefer="wait=60")
    async with asyncio.timeout(20.0):
        status, told, _ = await ask(proxy, *ASKING[0], **fields)

    assert (status, proxy.state) == (503, "cold")
    assert b"may not start one" in told


@WAYS
async def test_it_may_wait_for_a_launch_that_another_caused(
    proxy: RunningProxy, backend: InProcessBackend, way: str
) -> None:
    backend.boot_s = 0.5
    await ask(proxy, *ASKING[0], **by_way(way, "ann"))
    woken_at = record(proxy).last_used
    status, told, _ = await ask(proxy, *ASKING[0], **by_way(way))
    held, _, _ = await ask(proxy, *ASKING[0], **by_way(way, Prefer="wait=60"))

    assert (status, json.loads(told)["status"]) == (503, "provisioning")
    assert "may wait for it" in json.loads(told)["error"]
    assert (held, backend.launches) == (200, 1)
    assert record(proxy).woken_at <= woken_at
    assert record(proxy).leases == record(proxy).yielding == 0


@WAYS
@pytest.mark.parametrize(("method", "path", "body"), ASKING)
async def test_awake_it_is_served_and_resets_no_idle_time(
    proxy: RunningProxy, way: str, method: str, path: str, body: Any
) -> None:
    await proxy.wake()
    before = record(proxy).last_used
    status, _, _ = await ask(proxy, method, path, body, **by_way(way))
    await proxy.until(lambda: not proxy.parts.pulls.under_way())

    assert status in {200, 404}  # an Ollama has no /v1/rerank
    assert record(proxy).last_used == before
    assert record(proxy).leases == record(proxy).yielding == 0


@WAYS
async def test_its_stream_yields_and_anothers_keeps(
    proxy: RunningProxy, backend: InProcessBackend, way: str
) -> None:
    await proxy.wake()
    backend.manners.rate = 20.0
    seen = {}
    for name in ("ci", "ann"):
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers=by_way(way, name)
        ) as answer:
            await answer.content.readline()
            status = await proxy.status()
            seen[name] = (record(proxy).keeping, record(proxy).yielding)
            assert status["in_flight"] == 1
            assert (status["idle_for_s"] is None) == (name == "ann")
            assert (status["stops_in_s"] is None) == (name == "ann")

    assert seen == {"ci": (0, 1), "ann": (1, 0)}


@WAYS
async def test_a_stream_that_it_waited_for_yields_too(
    proxy: RunningProxy, backend: InProcessBackend, way: str
) -> None:
    backend.boot_s, backend.manners.rate = 0.3, 20.0
    await ask(proxy, *ASKING[0], **by_way(way, "ann"))
    async with proxy.session.post(
        f"{proxy.url}/api/generate",
        json=generate(),
        headers=by_way(way, Prefer="wait=60"),
    ) as answer:
        await answer.content.readline()
        seen = (record(proxy).keeping, record(proxy).yielding)

    assert seen == (0, 1)


async def test_its_pull_keeps_no_other_instance_of_the_pool(tmp_path: Path) -> None:
    """The others pull as well, in the background."""
    box = InProcessBackend(Manners(pull_s=0.2))
    async with running_proxy(
        tmp_path / "state",
        file=toml(tmp_path, TWO_INSTANCES),
        backends={"box": box},
        identify=Callers(ci=SLEEPER),
        timing=HURRIED,
    ) as proxy:
        await proxy.parts.pool.wake()
        await proxy.until(lambda: proxy.parts.pool.ready_count == 2)
        records = [one.record for one in proxy.parts.pool.controllers]
        used_at = [one.last_used for one in records]
        box.manners.pull_s = 0.5
        status, _, _ = await ask(proxy, "POST", "/api/pull", PULL, **bearer("ci"))
        seen: set[tuple[int, int]] = set()

        def is_done() -> bool:
            now = [one.record for one in proxy.parts.pool.controllers]
            seen.update((one.keeping, one.yielding) for one in now)
            return all(one.store.get("new") for one in box.simulators.values())

        await proxy.until(is_done)
        records = [one.record for one in proxy.parts.pool.controllers]

    assert status == 200
    assert {keeping for keeping, _ in seen} == {0}
    assert any(yielding for _, yielding in seen)
    assert [one.last_used for one in records] == used_at


async def test_a_pull_that_it_left_yields_until_somebody_who_may_wake_joins(
    proxy: RunningProxy,
) -> None:
    await proxy.wake()
    counts = []
    for name in ("ci", "ann"):
        answer = await proxy.session.post(
            f"{proxy.url}/api/pull", json=PULL, headers=bearer(name)
        )
        await answer.content.readline()
        answer.close()
        await proxy.until(lambda: record(proxy).leases == 1)
        counts.append(record(proxy).keeping)
    await proxy.until(lambda: not proxy.parts.pulls.under_way())

    assert counts == [0, 1]
    assert record(proxy).leases == record(proxy).yielding == 0


async def test_its_stream_ends_with_words_at_the_drain_limit(
    tmp_path: Path, backend: InProcessBackend
) -> None:
    backend.manners.rate = 5.0
    async with running_proxy(
        tmp_path,
        backend=backend,
        identify=Callers(ci=SLEEPER),
        OLLAMA_PROXY_IDLE_TIMEOUT="1s",
        OLLAMA_PROXY_DRAIN_TIMEOUT="1s",
    ) as proxy:
        await proxy.wake()
        body = generate(options={"num_predict": 1000}, prompt="word " * 1000)
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=body, headers=bearer("ci")
        ) as answer:
            told = lines(await answer.read())
        await proxy.until(lambda: proxy.state == "cold")

        assert "error" in told[-1]
        assert backend.running == 0


@WAYS
async def test_a_server_of_others_serves_it(tmp_path: Path, way: str) -> None:
    callers = Callers(ci=SLEEPER)
    async with (
        running_proxy(tmp_path / "far") as far,
        running_proxy(
            tmp_path, backend=StaticBackend(far.url), identify=callers
        ) as proxy,
    ):
        await far.wake()
        status, _, _ = await ask(proxy, *ASKING[0], **by_way(way))

    assert status == 200


async def test_it_is_served_while_another_use_keeps_the_instance(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    backend.manners.rate = 20.0
    await proxy.wake()
    answers = await asyncio.gather(
        *(ask(proxy, *ASKING[0], **bearer(name)) for name in ("ann", "ci", "ci"))
    )

    assert [status for status, _, _ in answers] == [200, 200, 200]
