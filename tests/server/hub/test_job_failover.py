"""Jobs go from node to node, as the former hub had it, on real sockets."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from ollama_proxy.backends.hub import HubBackend
from ollama_proxy.base.timing import STANDARD
from ollama_proxy.core.access.keys import Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.fleet.backend import Backend
from ollama_proxy.upstream.endpoint import Upstream
from tests.fakes.callers import Callers, bearer
from tests.fakes.faulty_nodes import Fault
from tests.fakes.instance import InProcessBackend
from tests.fleet.houses import a_node
from tests.ports import held_port
from tests.proxy import lines, running_proxy
from tests.proxy_of_nodes import Household, household

GOOD, CLOSES, HANGS, REFUSES = Fault.GOOD, Fault.CLOSES, Fault.HANGS, Fault.REFUSES
HUB: Any = {"OLLAMA_PROXY_HUB": "true", "OLLAMA_PROXY_HUB_LISTEN": "off"}
JOB = {"model": "tiny", "prompt": "hi", "options": {"seed": 1}}
SOON = replace(STANDARD, job_line_s=0.1)


async def job(house: Household, fields: str = "", **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        headers = bearer(fields) if fields else {}
        url = f"{house.proxy.url}/jobs"
        return await client.post(url, json={**JOB, **more}, headers=headers)


@pytest.mark.parametrize(
    "fault",
    [
        *(REFUSES, CLOSES, Fault.SAYS_500, Fault.SAYS_502, Fault.SAYS_503),
        *(Fault.SAYS_504, Fault.BREAKS_502, Fault.NOT_ADMITS),
    ],
)
async def test_another_node_does_what_one_can_not(tmp_path: Path, fault: Fault) -> None:
    async with household(tmp_path, fault, GOOD, **HUB) as house:
        answer = await job(house)

        assert answer.status_code == 200
        assert lines(answer.content)[0]["response"] == "b"
        assert house.in_flight == {}


async def test_a_failing_answer_that_stalls_is_given_up_soon(tmp_path: Path) -> None:
    with mock.patch("ollama_proxy.server.hub.job_answers.FAILURE_S", 0.1):
        async with household(tmp_path, Fault.STALLS_502, GOOD, **HUB) as house:
            answer = await job(house)

            assert lines(answer.content)[0]["response"] == "b"
            assert house.nodes[0].open == 0


async def test_a_node_that_is_silent_for_too_long_loses_the_job(
    tmp_path: Path,
) -> None:
    async with household(tmp_path, HANGS, GOOD, timeout_s=1, **HUB) as house:
        for node in house.house.nodes:
            house.house.put(replace(node.facts, loaded=frozenset(node.facts.models)))
        answer = await job(house)

        assert lines(answer.content)[0]["response"] == "b"
        assert house.failures() == ["a"]
        assert house.nodes[0].open == 0


async def test_empty_lines_count_as_nothing_sent(tmp_path: Path) -> None:
    async with household(
        tmp_path, HANGS, GOOD, timeout_s=1, timing=SOON, **HUB
    ) as house:
        answer = await job(house)

    assert answer.content.startswith(b"\n")
    assert lines(answer.content)[0]["response"] == "b"


async def test_if_all_fail_each_node_is_named_with_what_it_said(
    tmp_path: Path,
) -> None:
    async with household(
        tmp_path, Fault.SAYS_502, CLOSES, Fault.SAYS_503, GOOD, **HUB
    ) as house:
        answer = await job(house)
        asked = house.asked

    detail = answer.json()["detail"]
    assert asked == ["a", "b", "c"]
    assert answer.status_code == 503
    assert detail["message"] == "All candidate nodes failed to execute the job"
    assert [(one["node_id"], one["status"]) for one in detail["errors"]] == [
        *(("a", 502), ("b", None), ("c", 503))
    ]
    assert "a answers 502" in detail["errors"][0]["message"]


async def test_after_an_empty_line_that_is_the_last_line(tmp_path: Path) -> None:
    async with household(
        tmp_path, HANGS, Fault.SAYS_502, Fault.SAYS_502, timeout_s=1, timing=SOON, **HUB
    ) as house:
        answer = await job(house)

    [told] = lines(answer.content)
    assert answer.status_code == 200
    assert [one["status"] for one in told["detail"]["errors"]] == [None, 502, 502]


async def test_two_nodes_that_agree_on_a_fault_are_believed(tmp_path: Path) -> None:
    faults = Fault.SAYS_500, Fault.SAYS_500, GOOD
    async with household(tmp_path, *faults, **HUB) as house:
        answer = await job(house)

        assert house.asked == ["a", "b"]
        assert house.failures() == []
    assert answer.status_code == 503


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (Fault.SAYS_429, 429, "a answers 429"),
        (Fault.SAYS_404, 503, "No healthy nodes available for requested model"),
    ],
)
async def test_a_refusal_is_the_nodes_own_word(
    tmp_path: Path, fault: Fault, status: int, words: str
) -> None:
    async with household(tmp_path, fault, GOOD, **HUB) as house:
        answer = await job(house)

        assert house.asked == ["a"]
        assert house.failures() == []
    assert (answer.status_code, answer.json()["detail"]) == (status, words)


async def test_a_former_agent_gets_it_on_execute(tmp_path: Path) -> None:
    async with household(tmp_path, GOOD, serves_all=False, **HUB) as house:
        await job(house, client_id=7)
        [received] = house.received

    assert (received.method, received.path) == ("POST", "/execute")
    assert json.loads(received.body) == {**JOB, "stream": True}


async def test_a_former_agent_gets_no_job_that_it_can_not_do(tmp_path: Path) -> None:
    async with household(tmp_path, GOOD, serves_all=False, **HUB) as house:
        answer = await job(house, system="be brief", stream=False)

        assert house.received == []
    assert answer.status_code == 503
    assert answer.json()["detail"] == "No healthy nodes available for requested model"
    assert answer.json()["error"]


async def test_a_node_that_dies_within_the_answer_ends_it_in_words(
    tmp_path: Path,
) -> None:
    async with household(tmp_path, Fault.DIES, GOOD, **HUB) as house:
        answer = await job(house)

        first, last = lines(answer.content)
        assert first["response"] == "a"
        assert "lost" in last["error"]
        assert (house.asked, house.failures()) == (["a"], ["a"])


async def test_a_client_that_leaves_blames_no_node(tmp_path: Path) -> None:
    async with household(tmp_path, HANGS, **HUB) as house:
        with pytest.raises(httpx.ReadTimeout):
            async with httpx.AsyncClient(timeout=0.5) as client:
                await client.post(f"{house.proxy.url}/jobs", json=JOB)
        await house.proxy.until(lambda: not house.in_flight)

        assert house.failures() == []


async def test_a_key_that_is_removed_ends_its_job_in_words(tmp_path: Path) -> None:
    callers = Callers(worker=Rights(routes=frozenset({RouteClass.JOBS})))
    async with household(
        tmp_path, HANGS, timing=SOON, identify=callers, **HUB
    ) as house:
        asking = asyncio.ensure_future(job(house, "worker"))
        await house.proxy.until(lambda: bool(house.received))
        await asyncio.sleep(0.3)
        active = house.proxy.parts.active
        active.interrupt(callers.keys["worker"].id, "the key 'worker' was removed")
        answer = await asking

        [told] = lines(answer.content)
        assert "the key 'worker' was removed" in told["detail"]
        assert house.in_flight == {}


async def test_a_job_waits_for_a_slot(tmp_path: Path) -> None:
    async with household(tmp_path, GOOD, timing=SOON, **HUB) as house:
        [node] = house.house.nodes
        house.house.put(replace(node.facts, slots=1, foreign=0))
        house.nodes[0].may_go_on.clear()
        both = asyncio.gather(job(house), job(house))
        await house.proxy.until(lambda: house.proxy.parts.pool.waiting == 1)
        house.nodes[0].may_go_on.set()
        answers = await both

        assert [one.status_code for one in answers] == [200, 200]
        assert house.nodes[0].asked == 2


async def test_a_job_that_went_over_two_nodes_is_counted_once(tmp_path: Path) -> None:
    limited = Rights(routes=frozenset({RouteClass.JOBS}), tokens_per_day=1000)
    callers = Callers(worker=limited)
    async with household(tmp_path, CLOSES, GOOD, identify=callers, **HUB) as house:
        proxy = house.proxy
        answer = await job(house, "worker")
        usage = proxy.parts.gateway.usage
        await proxy.until(lambda: bool(usage.usage(1, None, frozenset())))
        [row] = usage.usage(1, None, frozenset())

        assert answer.status_code == 200
        assert house.asked == ["a", "b"]
        assert row.requests == 1
        assert proxy.tokens_of(callers.keys["worker"]) == (
            row.prompt_tokens + row.output_tokens
        )


async def test_a_job_that_no_node_took_costs_its_key_nothing(tmp_path: Path) -> None:
    limited = Rights(routes=frozenset({RouteClass.JOBS}), tokens_per_day=1000)
    callers = Callers(worker=limited)
    async with household(
        tmp_path, REFUSES, Fault.SAYS_502, identify=callers, **HUB
    ) as house:
        answer = await job(house, "worker")
        key = callers.keys["worker"]

        assert answer.status_code == 503
        await house.proxy.until(lambda: house.proxy.tokens_of(key) == 0)


OVERFLOW = """
hub = true
[offers.house]
backend = "hub"
[offers.cloud]
backend = "local"
[pools.all]
models = ["*"]
offers = ["house", "cloud"]
"""


async def test_after_three_nodes_a_machine_of_a_cloud_may_do_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(OVERFLOW)
    backends: dict[str, Backend] = {
        "house": HubBackend(Labels()),
        "cloud": InProcessBackend(boot_s=0.5),
    }
    settings: Any = {**HUB, "OLLAMA_MODEL": "tiny"}
    async with running_proxy(
        tmp_path, backends=backends, file=file, **settings
    ) as proxy:
        (house,) = proxy.parts.pool.houses
        for name in "abcd":
            away = Upstream(f"http://127.0.0.1:{held_port()}")
            house.put(a_node(name, ["tiny"], slots=8, upstream=away))
        async with proxy.session.post(f"{proxy.url}/jobs", json=JOB) as answer:
            told = lines(await answer.read())

    assert told[-1]["done"]
