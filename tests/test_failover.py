"""A request goes on to the next node, on real sockets, by both servers."""

import asyncio
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from structlog.testing import capture_logs

from ollama_proxy.base import log
from ollama_proxy.base.tasks import start_task
from tests.fakes.faulty_nodes import LONG_BODY, Fault
from tests.proxy import HAS_FAST_PATH
from tests.proxy_of_nodes import Household, household

GOOD, DIES, HANGS = Fault.GOOD, Fault.DIES, Fault.HANGS
REFUSES, CLOSES = Fault.REFUSES, Fault.CLOSES
BODIES: dict[str, dict[str, Any]] = {
    "/api/chat": {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]},
    "/api/generate": {"model": "tiny", "prompt": "hi", "system": "be brief"},
    "/v1/chat/completions": {
        "model": "tiny",
        "stream": True,
        "messages": [{"role": "user", "content": "hi"}],
    },
    "/v1/messages": {
        "model": "tiny",
        "stream": True,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
    },
}

pytestmark = [
    pytest.mark.no_cover,  # twenty faults by the same lines; see test_attempts
    pytest.mark.parametrize("behind", [False, True]),
]


async def ask(
    house: Household,
    path: str = "/api/chat",
    *,
    behind: bool,
    retry: str = "",
    method: str = "POST",
    **changes: Any,
) -> tuple[int, str, dict[str, str]]:
    """Send one request; return status, body and headers of the answer."""
    headers = {"X-Ollama-Proxy-Pool": "any"} if behind else {}
    if retry:
        headers["X-Ollama-Proxy-Retry"] = retry
    body = {**BODIES.get(path, {"model": "tiny"}), **changes}
    async with (
        asyncio.timeout(60.0),
        house.proxy.session.request(
            method,
            house.proxy.url + path,
            json=body if method == "POST" else None,
            headers=headers,
        ) as answer,
    ):
        return answer.status, await answer.text(), dict(answer.headers)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "fault",
    [
        REFUSES,
        Fault.SAYS_500,
        Fault.SAYS_502,
        Fault.SAYS_503,
        Fault.SAYS_504,
        Fault.BREAKS_502,
        Fault.NOT_ADMITS,
    ],
)
async def test_the_next_node_answers_what_one_can_not(
    tmp_path: Path, behind: bool, fault: Fault, path: str
) -> None:
    async with household(tmp_path, fault, GOOD) as house:
        status, body, _ = await ask(house, path, behind=behind)

        assert status == 200
        assert "b" in body
        assert house.asked == (["b"] if fault is REFUSES else ["a", "b"])
        assert house.failures() == ([] if fault is Fault.SAYS_503 else ["a"])
        assert house.answers() == ["b"]
        assert house.in_flight == {}
        assert bool(house.proxy.behind) is (behind or not HAS_FAST_PATH)


async def test_a_failing_answer_that_stalls_is_given_up_soon(
    tmp_path: Path, behind: bool
) -> None:
    with mock.patch("ollama_proxy.serving.attempts.FAILURE_S", 0.1):
        async with household(tmp_path, Fault.STALLS_502, GOOD) as house:
            status, _, _ = await ask(house, behind=behind)

            assert status == 200
            assert house.asked == ["a", "b"]
            assert house.failures() == ["a"]
            assert house.nodes[0].open == 0


async def test_the_log_names_the_node_and_how_many_have_failed(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, Fault.SAYS_502, GOOD) as house:
        with capture_logs() as logged, mock.patch.object(log, "REQUESTS") as requests:
            await ask(house, behind=behind)
            await house.proxy.until(lambda: requests.write.called)

    line = requests.write.call_args.args[1]
    (failed,) = (one for one in logged if one["event"] == log.NODE_FAILED)
    assert (failed["node"], failed["next_node"]) == ("a", "b")
    assert failed["error"] == "answered 502: a answers 502"
    assert failed["request_id"] == line["request_id"]
    assert (line["node"], line["failed_nodes"]) == ("b", 1)


async def test_a_request_is_the_same_on_the_next_node(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, Fault.SAYS_503, GOOD) as house:
        await ask(house, "/api/chat", behind=behind)
        first, second = (one.received[0] for one in house.nodes)

    assert (first.method, first.path, first.body) == (
        second.method,
        second.path,
        second.body,
    )
    assert json.loads(second.body) == BODIES["/api/chat"]
    without_host = [{**one.fields, "host": ""} for one in (first, second)]
    assert without_host[0] == without_host[1]


@pytest.mark.parametrize("status", [404, 429])
async def test_a_nodes_own_refusal_goes_to_the_client(
    tmp_path: Path, behind: bool, status: int
) -> None:
    async with household(tmp_path, Fault(status), GOOD) as house:
        told = await ask(house, behind=behind)

        assert told[0] == status
        assert json.loads(told[1]) == {"error": f"a answers {status}"}
        assert told[2]["X-Node"] == "own"
        assert house.asked == ["a"]
        assert house.failures() == []


async def test_the_last_answer_passes_as_it_came_if_three_nodes_answer(
    tmp_path: Path, behind: bool
) -> None:
    faults = (Fault.SAYS_503, Fault.SAYS_502, Fault.SAYS_504, GOOD)
    async with household(tmp_path, *faults) as house:
        status, body, headers = await ask(house, behind=behind)

        assert status == 504
        assert json.loads(body) == {"error": "c answers 504"}
        assert headers["X-Node"] == "own"
        assert house.asked == ["a", "b", "c"]
        assert house.failures() == ["b", "c"]
        assert house.answers() == []
        assert house.in_flight == {}


async def test_two_nodes_that_answer_500_are_believed(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, Fault.SAYS_500, Fault.SAYS_500, GOOD) as house:
        status, body, _ = await ask(house, behind=behind)

        assert status == 500
        assert json.loads(body) == {"error": "b answers 500"}
        assert house.failures() == []


async def test_a_500_of_the_only_node_passes(tmp_path: Path, behind: bool) -> None:
    async with household(tmp_path, Fault.SAYS_500) as house:
        status, body, _ = await ask(house, behind=behind)

        assert status == 500
        assert json.loads(body) == {"error": "a answers 500"}
        assert house.failures() == []


async def test_three_nodes_that_refuse_are_named_in_the_503(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, REFUSES, REFUSES, REFUSES, GOOD) as house:
        status, body, _ = await ask(house, behind=behind)

        assert status == 503
        assert house.asked == []
        assert house.failures() == ["a", "b", "c"]
        assert all(f"{name}: " in body for name in "abc")


async def test_a_failing_answer_that_is_too_long_to_be_held_passes(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, Fault.LONG_502, GOOD) as house:
        status, body, _ = await ask(house, behind=behind)

        assert status == 502
        assert body.encode() == LONG_BODY
        assert house.asked == ["a"]
        assert house.failures() == ["a"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("fault", [CLOSES, HANGS])
async def test_what_a_node_may_have_begun_is_sent_to_no_other(
    tmp_path: Path, behind: bool, path: str, fault: Fault
) -> None:
    async with household(tmp_path, fault, GOOD, timeout_s=1) as house:
        status, body, _ = await ask(house, path, behind=behind)

        assert status == 503
        assert "a: " in body
        assert house.asked == ["a"]
        assert house.failures() == ["a"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("fault", [CLOSES, HANGS, Fault.EARLY_HEAD])
async def test_it_is_sent_to_another_node_if_its_client_asks_for_that(
    tmp_path: Path, behind: bool, path: str, fault: Fault
) -> None:
    async with household(tmp_path, fault, GOOD, timeout_s=1) as house:
        status, body, _ = await ask(house, path, behind=behind, retry="Always")

        assert status == 200
        assert "b" in body
        assert house.asked == ["a", "b"]
        assert house.failures() == ["a"]
        assert all("x-ollama-proxy-retry" not in one.fields for one in house.received)
        assert house.in_flight == {}


async def test_the_first_connection_is_closed_before_the_next_node_is_asked(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, HANGS, CLOSES, HANGS, timeout_s=1) as house:
        counts: list[int] = []
        for node in house.nodes:
            node.on_request = lambda: counts.append(sum(n.open for n in house.nodes))
        await ask(house, behind=behind, retry="always")

        assert house.asked == ["a", "b", "c"]
        assert counts == [1, 1, 1]


@pytest.mark.parametrize(
    ("has_loaded", "streams", "status"),
    [(True, True, 503), (True, False, 200), (False, True, 200)],
)
async def test_the_first_byte_may_take_longer_if_a_model_is_loaded_or_it_is_the_last(
    tmp_path: Path, behind: bool, has_loaded: bool, streams: bool, status: int
) -> None:
    async with household(
        tmp_path, Fault.SLOW, has_loaded=has_loaded, timeout_s=1
    ) as house:
        told = await ask(house, "/api/chat", behind=behind, stream=streams)

        assert told[0] == status


async def test_other_values_of_the_header_ask_for_nothing(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, CLOSES, GOOD) as house:
        status, _, _ = await ask(house, behind=behind, retry="never")

        assert status == 503
        assert house.asked == ["a"]


@pytest.mark.parametrize("path", ["/api/show", "/v1/models/tiny"])
async def test_a_read_does_not_heal_a_node(
    tmp_path: Path, behind: bool, path: str
) -> None:
    """A box whose models don't run may list them, and would get work for ever."""
    method = "POST" if path == "/api/show" else "GET"
    async with household(tmp_path, GOOD) as house:
        assert (await ask(house, path, behind=behind, method=method))[0] == 200
        assert house.reports.said == []


@pytest.mark.parametrize("fault", [REFUSES, CLOSES, HANGS, Fault.SAYS_502])
@pytest.mark.parametrize("path", ["/api/show", "/v1/models/tiny"])
async def test_a_read_goes_to_the_next_node_in_every_case(
    tmp_path: Path, behind: bool, fault: Fault, path: str
) -> None:
    method = "POST" if path == "/api/show" else "GET"
    async with household(tmp_path, fault, GOOD, timeout_s=1) as house:
        status, body, _ = await ask(house, path, behind=behind, method=method)

        assert status == 200
        assert "b" in body
        assert house.failures() == ["a"]


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_ends_in_its_own_words_if_its_node_dies(
    tmp_path: Path, behind: bool, path: str
) -> None:
    async with household(tmp_path, DIES, GOOD) as house:
        status, body, _ = await ask(house, path, behind=behind)

        assert status == 200
        last = body.rstrip().splitlines()[-1].removeprefix("data: ")
        assert "the instance was lost" in json.dumps(json.loads(last)["error"])
        assert ("event: error" in body) is (path == "/v1/messages")
        assert house.asked == ["a"]
        assert house.failures() == ["a"]
        assert house.in_flight == {}


async def test_a_node_that_ends_a_stream_too_early_has_broken_it_off(
    tmp_path: Path, behind: bool
) -> None:
    """A former agent may end its answer cleanly although its Ollama broke off."""
    async with household(tmp_path, Fault.ENDS_EARLY, serves_all=False) as house:
        body = {"prompt": "hi", "stream": True}
        url = f"{house.proxy.url}/api/generate"
        headers = {"X-Ollama-Proxy-Pool": "any"} if behind else {}
        async with house.proxy.session.post(
            url, json={"model": "tiny", **body}, headers=headers
        ) as answer:
            said = await answer.text()

        assert "error" in json.loads(said.splitlines()[-1])
        assert house.failures() == ["a"]


async def test_streams_of_other_nodes_go_on_if_one_dies(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, DIES, GOOD, places=(0, 0)) as house:
        for node in house.nodes:
            node.may_go_on.clear()
        asking = [start_task(ask(house, behind=behind), name="ask") for _ in range(6)]
        await house.proxy.until(lambda: len(house.received) == 6)
        for node in house.nodes:
            node.may_go_on.set()
        told = await asyncio.gather(*asking)

        died = [json.loads(body.splitlines()[-1]) for _, body, _ in told]
        assert house.nodes[0].asked
        assert sum("error" in one for one in died) == house.nodes[0].asked
        assert sum(one.get("done", False) for one in died) == house.nodes[1].asked
        assert house.in_flight == {}


async def test_an_answer_without_a_body_passes_too(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, Fault.EMPTY_503) as house:
        told = [(await ask(house, behind=behind))[:2] for _ in range(2)]

        assert told == [(503, "")] * 2


async def test_a_request_waits_for_a_slot_of_the_next_node(
    tmp_path: Path, behind: bool
) -> None:
    faults = (Fault.SAYS_502, GOOD, REFUSES)
    async with household(tmp_path, *faults, slots=1, places=(0, 0, 0)) as house:
        told = await asyncio.gather(*(ask(house, behind=behind) for _ in range(12)))

        assert [status for status, _, _ in told] == [200] * 12
        assert house.nodes[1].asked == 12
        assert house.failures()
        assert house.in_flight == {}
        assert house.proxy.parts.pool.waiting == 0


async def test_a_client_that_leaves_while_it_waits_for_the_next_node_is_forgotten(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, Fault.SAYS_502, HANGS, slots=1) as house:
        house.leave(house.nodes[0])
        pool = house.proxy.parts.pool
        first = start_task(ask(house, behind=behind), name="ask")
        await house.proxy.until(lambda: house.asked == ["b"])
        house.join(house.nodes[0])
        second = start_task(ask(house, behind=behind), name="ask")
        await house.proxy.until(lambda: pool.waiting == 1)
        second.cancel()
        await house.proxy.until(lambda: pool.waiting == 0)
        first.cancel()
        await house.proxy.until(lambda: house.in_flight == {})

        assert house.asked == ["a", "b"]


async def test_a_client_that_leaves_is_no_failure_of_the_node(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, HANGS, GOOD) as house:
        asking = start_task(ask(house, behind=behind, retry="always"), name="ask")
        await house.proxy.until(lambda: house.asked == ["a"])
        asking.cancel()
        await house.proxy.until(lambda: house.in_flight == {})

        assert house.reports.said == []
        assert house.asked == ["a"]


async def test_a_node_that_serves_execute_alone_gets_plain_generations(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, Fault.SAYS_503, GOOD, serves_all=False) as house:
        body = {"model": "tiny", "prompt": "hi", "stream": True, "system": None}
        del body["system"]
        async with house.proxy.session.post(
            f"{house.proxy.url}/api/generate?a=b",
            json=body,
            headers={"X-Ollama-Proxy-Pool": "any"} if behind else {},
        ) as answer:
            said = await answer.text()
        assert answer.status == 200
        assert "b" in said
        assert [one.path for one in house.received] == ["/execute"] * 2
        assert [json.loads(one.body) for one in house.received] == [body] * 2


async def test_a_node_that_serves_execute_alone_gets_nothing_else(
    tmp_path: Path, behind: bool
) -> None:
    async with household(tmp_path, GOOD, serves_all=False) as house:
        for path in BODIES:
            status, _, _ = await ask(house, path, behind=behind)
            assert status == 503
        assert house.asked == []
