"""What goes with a request to the next node: its wait, its body, its key."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.base.tasks import start_task
from ollama_proxy.core.access.keys import Rights
from ollama_proxy.serving.hold_policy import HoldPolicy
from tests.fakes.callers import WAYS, Callers, by_way
from tests.fakes.faulty_nodes import Fault
from tests.fakes.instance import InProcessBackend
from tests.proxy import generate
from tests.proxy_of_nodes import Household, household

GOOD, REFUSES, CLOSES, HANGS = (
    Fault.GOOD,
    Fault.REFUSES,
    Fault.CLOSES,
    Fault.HANGS,
)
HELD = HoldPolicy(hold_s=30.0)
BEATING = HoldPolicy(max_hold_s=60.0, silent_s=0.02, beat_s=0.05)
DIGEST = f"sha256:{'a' * 64}"
LONG = 1_000_000  # longer than what is kept of any body, shorter than what is held
RETRY = {"X-Ollama-Proxy-Retry": "always"}
CALLERS = Callers(
    ci=Rights(rpm=100, parallel=1, tokens_per_day=1_000_000),
)


async def ask(
    house: Household, body: Any, path: str = "/api/generate", **headers: str
) -> tuple[int, str]:
    async with (
        asyncio.timeout(60.0),
        house.proxy.session.post(
            house.proxy.url + path,
            json=body if isinstance(body, dict) else None,
            data=None if isinstance(body, dict) else body,
            headers=headers,
        ) as answer,
    ):
        return answer.status, await answer.text()


async def ask_after_heartbeats(
    house: Household, body: dict[str, Any], path: str, **headers: str
) -> str:
    """Have a stream wait until it has begun, then have nodes; return its body."""
    for node in house.nodes:
        house.leave(node)
    headers |= {"Prefer": "wait=50"}
    async with (
        asyncio.timeout(60.0),
        house.proxy.session.post(
            house.proxy.url + path, json=body, headers=headers
        ) as answer,
    ):
        assert answer.status == 200
        for node in house.nodes:
            house.join(node)
        return await answer.text()


async def parts(size: int) -> AsyncIterator[bytes]:
    """Yield a body whose length is not known before its end."""
    for _ in range(0, size, 100_000):
        yield b"x" * 100_000


@WAYS
async def test_an_instance_of_ours_is_woken_if_no_node_is_left(
    tmp_path: Path, way: str
) -> None:
    """The fast path asks the node; what waits is left to aiohttp, which does not."""
    cloud = InProcessBackend(boot_s=0.1)
    async with household(tmp_path, CLOSES, REFUSES, server=cloud, hold=HELD) as house:
        house.leave(house.nodes[0])
        status, body = await ask(house, generate(), **by_way(way, "nobody"))

        assert status == 200
        assert json.loads(body.splitlines()[-1])["done"]
        assert house.failures() == ["b"]
        assert cloud.launches == 1


@WAYS
async def test_an_instance_of_ours_answers_after_three_nodes_have_failed(
    tmp_path: Path, way: str
) -> None:
    cloud = InProcessBackend(boot_s=0.1)
    faults = (REFUSES, REFUSES, REFUSES, GOOD)
    async with household(tmp_path, *faults, server=cloud, hold=HELD) as house:
        status, _ = await ask(house, generate(), **by_way(way, "nobody"))

        assert status == 200
        assert house.failures() == ["a", "b", "c"]
        assert house.asked == []
        assert cloud.launches == 1


@WAYS
async def test_a_node_that_joins_meanwhile_answers_what_waits(
    tmp_path: Path, way: str
) -> None:
    cloud = InProcessBackend(boot_s=60.0)
    async with household(tmp_path, REFUSES, GOOD, server=cloud, hold=HELD) as house:
        house.leave(house.nodes[1])
        asking = start_task(ask(house, generate(), **by_way(way, "nobody")), name="ask")
        await house.proxy.until(lambda: house.proxy.parts.pool.waiting == 1)
        house.join(house.nodes[1])
        status, body = await asking

        assert (status, "b" in body) == (200, True)
        assert house.failures() == ["a"]


@pytest.mark.parametrize(
    "path", ["/api/generate", "/v1/chat/completions", "/v1/messages"]
)
@pytest.mark.parametrize(
    "fault", [REFUSES, Fault.SAYS_500, Fault.SAYS_502, Fault.SAYS_503, CLOSES, HANGS]
)
async def test_heartbeats_count_as_nothing_sent(
    tmp_path: Path, fault: Fault, path: str
) -> None:
    cloud = InProcessBackend(boot_s=60.0)
    faults = (fault, GOOD)
    async with household(
        tmp_path, *faults, server=cloud, hold=BEATING, timeout_s=1
    ) as house:
        body = await ask_after_heartbeats(house, streamed(path), path, **RETRY)

        assert body[:1] in " :e"
        assert '"b"' in body or ":b" in body or "content" in body
        assert "error" not in body
        assert house.asked[-1] == "b"
        assert house.in_flight == {}


def streamed(path: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]
    if path == "/api/generate":
        return generate()
    return {"model": "tiny", "stream": True, "max_tokens": 9, "messages": messages}


async def test_a_held_stream_ends_in_its_words_if_no_other_node_may_be_asked(
    tmp_path: Path,
) -> None:
    cloud = InProcessBackend(boot_s=60.0)
    async with household(tmp_path, CLOSES, GOOD, server=cloud, hold=BEATING) as house:
        body = await ask_after_heartbeats(house, generate(), "/api/generate")

        assert "a: the instance did not answer" in json.loads(body)["error"]
        assert house.asked == ["a"]


async def test_a_long_prompt_is_kept_for_the_next_node(tmp_path: Path) -> None:
    async with household(tmp_path, Fault.SAYS_503, GOOD) as house:
        body = generate(prompt="x" * LONG)
        status, _ = await ask(house, body)

        assert status == 200
        assert [json.loads(one.body) for one in house.received] == [body, body]


@pytest.mark.parametrize("fault", [CLOSES, HANGS])
async def test_a_file_that_may_have_been_sent_is_sent_to_no_other_node(
    tmp_path: Path, fault: Fault
) -> None:
    async with household(tmp_path, fault, GOOD, timeout_s=1) as house:
        path = f"/api/blobs/{DIGEST}"
        asking = start_task(ask(house, parts(LONG), path, **RETRY), name="ask")
        if fault is HANGS:
            await house.proxy.until(lambda: house.asked == ["a"])
            house.house.remove("a")
        status, body = await asking

        assert status == 503
        assert json.loads(body)["error"].count("a: ") == 1
        assert house.asked == ["a"]


async def test_a_file_goes_to_the_next_node_if_none_of_it_was_sent(
    tmp_path: Path,
) -> None:
    async with household(tmp_path, REFUSES, GOOD) as house:
        status, _ = await ask(house, parts(LONG), f"/api/blobs/{DIGEST}")

        assert status == 200
        assert [len(one.body) for one in house.received] == [LONG]
        assert house.failures() == ["a"]


async def test_what_a_node_answers_to_a_change_is_final(tmp_path: Path) -> None:
    async with household(tmp_path, Fault.SAYS_502, GOOD) as house:
        status, body = await ask(house, {"model": "tiny"}, "/api/pull")

        assert (status, json.loads(body)) == (502, {"error": "a answers 502"})
        assert house.asked == ["a"]


@WAYS
@pytest.mark.parametrize("fault", [REFUSES, Fault.SAYS_503, CLOSES])
async def test_a_request_that_moves_counts_once_for_its_key(
    tmp_path: Path, way: str, fault: Fault
) -> None:
    async with household(tmp_path, fault, GOOD, identify=CALLERS) as house:
        limits, key = house.proxy.parts.gateway.limits, CALLERS.keys["ci"]
        for _ in range(2):  # one at a time: the first is settled
            headers = by_way(way, **RETRY) if fault is CLOSES else by_way(way)
            status, _ = await ask(house, generate(), **headers)
            assert status == 200
            await house.proxy.until(lambda: limits.in_flight(key.id) == 0)
        (row,) = house.proxy.parts.gateway.usage.usage(1, None, frozenset())

        assert row.requests == 2
