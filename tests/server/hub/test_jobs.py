"""Jobs, as clients of the former hub send them: answers, empty lines, errors."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.timing import STANDARD
from ollama_proxy.core.access.keys import Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.serving.active_view import active_body
from ollama_proxy.simulator.server import Manners
from tests.fakes.callers import Callers, bearer
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import RawUpstream, raw_upstream
from tests.proxy import RunningProxy, lines, running_proxy

JOB = {"model": "tiny", "prompt": "hi", "options": {"num_predict": 5}}
NO_NODES = {"detail": "No healthy nodes available for requested model"}
HUB = {"OLLAMA_PROXY_HUB": "true", "OLLAMA_PROXY_HUB_LISTEN": "off"}
SOON = replace(STANDARD, job_line_s=0.05)
JOBS = Rights(routes=frozenset({RouteClass.JOBS}))

Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def hub(
    folder: Path, backend: Any = None, **more: Any
) -> AsyncIterator[RunningProxy]:
    backend = backend or InProcessBackend()
    async with running_proxy(folder, backend=backend, **{**HUB, **more}) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def hub_before(
    folder: Path, answering: Answering, **more: Any
) -> AsyncIterator[tuple[RawUpstream, RunningProxy]]:
    """Run a hub before a ready machine that answers jobs as a test has it."""

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"}")
        await answering(writer)

    async with (
        raw_upstream(script) as upstream,
        hub(folder, StaticBackend(upstream.url), timing=SOON, **more) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        yield upstream, proxy


async def job(proxy: RunningProxy, body: Any = JOB, **fields: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.post(f"{proxy.url}/jobs", json=body, headers=fields)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
WORD, LAST = b'{"response":"a"}\n', b'{"response":"","done":true}\n'


async def test_a_job_is_answered_line_by_line(tmp_path: Path) -> None:
    async with hub(tmp_path) as proxy:
        answer = await job(proxy)

    told = lines(answer.content)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert [one["model"] for one in told] == ["tiny"] * len(told)
    assert told[-1]["done"]
    assert told[-1]["eval_count"] == 5


async def test_a_job_may_be_answered_in_one_piece(tmp_path: Path) -> None:
    async with hub(tmp_path) as proxy:
        answer = await job(proxy, {**JOB, "stream": False})

    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json()["done"]


async def test_messages_make_it_a_chat(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "hi"}]
    async with hub(tmp_path) as proxy:
        answer = await job(proxy, {"model": "tiny", "messages": said, "stream": False})

    assert answer.json()["message"]["role"] == "assistant"


async def test_who_accepts_events_gets_events(tmp_path: Path) -> None:
    async with hub(tmp_path) as proxy:
        answer = await job(proxy, Accept="text/event-stream")

    events = answer.text.split("\n\n")
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert events.pop() == ""
    assert json.loads(events[-1].removeprefix("data: "))["done"]


async def test_a_client_with_httpx_own_time_out_survives_a_slow_model(
    tmp_path: Path,
) -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await writer.drain()
        await asyncio.sleep(5.6)
        writer.write(chunk(LAST) + b"0\r\n\r\n")

    async with (
        hub_before(tmp_path, slowly) as (_, proxy),
        httpx.AsyncClient() as client,
        client.stream("POST", f"{proxy.url}/jobs", json=JOB) as answer,
    ):
        told = [json.loads(line) async for line in answer.aiter_lines() if line]

    assert told == [json.loads(LAST)]


async def test_empty_lines_come_until_the_first_byte_and_no_longer(
    tmp_path: Path,
) -> None:
    came = asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await came.wait()
        writer.write(chunk(WORD))
        await asyncio.sleep(0.5)
        writer.write(chunk(LAST) + b"0\r\n\r\n")

    async with (
        hub_before(tmp_path, slowly) as (_, proxy),
        proxy.session.post(f"{proxy.url}/jobs", json=JOB) as reply,
    ):
        begun = await reply.content.readexactly(2)
        came.set()
        rest = await reply.content.read()

    assert begun == b"\n\n"
    assert rest.lstrip(b"\n") == WORD + LAST
    assert reply.headers["X-Ollama-Proxy"] == "held"


async def test_empty_lines_come_before_an_answer_in_one_piece(tmp_path: Path) -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(LAST) + LAST)

    async with hub_before(tmp_path, slowly) as (_, proxy):
        answer = await job(proxy, {**JOB, "stream": False})

    assert answer.content.startswith(b"\n")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json()["done"]


async def test_a_node_gets_the_job_and_none_of_the_clients_headers(
    tmp_path: Path,
) -> None:
    async def at_once(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(LAST) + b"0\r\n\r\n")

    async with hub_before(tmp_path, at_once) as (upstream, proxy):
        await job(proxy, {**JOB, "more": 1}, **bearer("x"), Cookie="a=b")

    sent = upstream.heads[-1].lower()
    assert sent.startswith(b"post /api/generate http/1.1\r\n")
    assert b"authorization" not in sent
    assert b"cookie" not in sent


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"{}", 400, "'model' is missing"),
        (b'{"model":"tiny"}', 400, "'prompt' or 'messages'"),
    ],
)
async def test_a_body_that_is_no_job_is_refused(
    tmp_path: Path, body: bytes, status: int, words: str
) -> None:
    async with (
        hub(tmp_path) as proxy,
        proxy.session.post(f"{proxy.url}/jobs", data=body) as answer,
    ):
        told = await answer.json()

    assert answer.status == status
    assert told.keys() == {"detail"}
    assert words in told["detail"]


async def test_a_body_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * (1 << 20)

    async with hub(tmp_path) as proxy:
        with contextlib.suppress(ConnectionError):
            async with proxy.session.post(f"{proxy.url}/jobs", data=endless()) as told:
                assert told.status == 413
                assert "32 MiB" in (await told.json())["detail"]
        assert proxy.parts.budget.taken == 0


async def test_a_compressed_body_is_refused_in_words(tmp_path: Path) -> None:
    packed = {"Content-Encoding": "gzip"}
    async with (
        hub(tmp_path) as proxy,
        proxy.session.post(f"{proxy.url}/jobs", data=b"x", headers=packed) as told,
    ):
        assert told.status == 415


async def test_a_model_that_is_nowhere_is_one_without_nodes(tmp_path: Path) -> None:
    async with hub(tmp_path) as proxy:
        await proxy.wake()
        await job(proxy)
        answer = await job(proxy, {**JOB, "model": "unheard-of"})

    assert answer.status_code == 503
    assert answer.json() == NO_NODES


async def test_a_failed_job_lists_what_the_node_said(tmp_path: Path) -> None:
    async def fail(writer: asyncio.StreamWriter) -> None:
        body = b'{"error":"out of memory"}'
        writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)

    async with hub_before(tmp_path, fail) as (_, proxy):
        answer = await job(proxy)

    detail = answer.json()["detail"]
    assert answer.status_code == 503
    assert detail["message"] == "All candidate nodes failed to execute the job"
    assert [(one["message"], one["status"]) for one in detail["errors"]] == [
        ("answered 500: out of memory", 500)
    ]
    assert len(detail["job_id"]) == 36


async def test_after_an_empty_line_the_error_is_the_last_line(tmp_path: Path) -> None:
    async def fail(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}")

    async with hub_before(tmp_path, fail) as (_, proxy):
        answer = await job(proxy)

    assert answer.status_code == 200
    assert answer.content.endswith(b"}\n")
    [told] = lines(answer.content)
    assert told["detail"]["errors"][0]["status"] == 500


async def test_a_node_that_refuses_a_job_has_the_word(tmp_path: Path) -> None:
    async def refuse(writer: asyncio.StreamWriter) -> None:
        body = b'{"error":"no such option"}'
        writer.write(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)

    async with hub_before(tmp_path, refuse) as (_, proxy):
        answer = await job(proxy)

    assert answer.status_code == 400
    assert answer.json()["detail"] == "no such option"


async def test_a_node_that_dies_within_the_answer_ends_it_with_words(
    tmp_path: Path,
) -> None:
    async def die(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(WORD))
        await writer.drain()
        writer.close()

    async with hub_before(tmp_path, die) as (_, proxy):
        answer = await job(proxy)

    *_, last = lines(answer.content)
    assert "lost" in last["error"]


async def test_events_end_with_words_in_an_event(tmp_path: Path) -> None:
    async def die(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(WORD + b'{"resp'))
        await writer.drain()
        writer.close()

    async with hub_before(tmp_path, die) as (_, proxy):
        answer = await job(proxy, Accept="text/event-stream")

    events = [one for one in answer.text.split("\n\n") if one.strip()]
    assert all(one.strip().startswith("data: ") for one in events)
    assert "lost" in json.loads(events[-1].strip().removeprefix("data: "))["error"]


async def test_a_key_needs_the_right_to_jobs(tmp_path: Path) -> None:
    callers = Callers(worker=JOBS, chatter=Rights())
    async with hub(tmp_path, identify=callers) as proxy:
        allowed = await job(proxy, **bearer("worker"))
        refused = await job(proxy, **bearer("chatter"))

    assert allowed.status_code == 200
    assert refused.status_code == 403
    assert "jobs" in refused.json()["detail"]


async def test_a_key_is_charged_for_a_job_once(tmp_path: Path) -> None:
    limited = Rights(routes=frozenset({RouteClass.JOBS}), tokens_per_day=10_000)
    callers = Callers(worker=limited)
    async with hub(tmp_path, identify=callers) as proxy:
        answer = await job(proxy, **bearer("worker"))
        last = lines(answer.content)[-1]
        used = last["prompt_eval_count"] + last["eval_count"]
        await proxy.until(lambda: proxy.tokens_of(callers.keys["worker"]) == used)
        usage = proxy.parts.gateway.usage.usage(1, None, frozenset())

    assert [(row.requests, row.estimated) for row in usage] == [(1, 0)]
    assert usage[0].prompt_tokens + usage[0].output_tokens == used


async def test_a_key_with_models_gets_no_other_one(tmp_path: Path) -> None:
    only = Rights(routes=frozenset({RouteClass.JOBS}), models=("other",))
    async with hub(tmp_path, identify=Callers(worker=only)) as proxy:
        answer = await job(proxy, **bearer("worker"))

    assert answer.status_code == 403
    assert "tiny" in answer.json()["detail"]


async def test_without_a_hub_there_are_no_jobs(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        answer = await job(proxy)

    assert answer.status_code == 404


def test_requests_reads_a_job_line_by_line(tmp_path: Path) -> None:
    async def ask() -> list[Any]:
        async with hub(tmp_path) as proxy:
            return await asyncio.to_thread(by_requests, proxy.url)

    assert asyncio.run(ask())[-1]["done"]


def by_requests(url: str) -> list[Any]:
    with requests.post(f"{url}/jobs", json=JOB, stream=True, timeout=60) as answer:
        return [json.loads(line) for line in answer.iter_lines() if line]


async def test_a_fault_of_the_proxy_is_told_in_the_old_shape(tmp_path: Path) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise StoreError("the disk is full")

    async with hub(tmp_path) as proxy:
        proxy.parts.pool.lease = fail
        answer = await job(proxy)

    assert answer.status_code == 500
    assert answer.json() == {"detail": "the disk is full", "error": "the disk is full"}


async def test_a_client_that_leaves_ends_its_wait(tmp_path: Path) -> None:
    async def never(_writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with hub_before(tmp_path, never) as (_, proxy):
        async with httpx.AsyncClient(timeout=0.02) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(f"{proxy.url}/jobs", json=JOB)
        await proxy.until(lambda: not proxy.parts.active)
        assert proxy.parts.budget.taken == 0


async def test_a_job_that_waits_ends_in_words_when_the_proxy_ends(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend(boot_s=60.0)
    async with hub(tmp_path, backend, timing=SOON) as proxy:
        asking = asyncio.ensure_future(job(proxy))
        await proxy.until(lambda: proxy.parts.pool.waiting == 1)
        await asyncio.sleep(0.2)
        proxy.parts.pool.stop_admitting()
        answer = await asking
        backend.boot_s = 0.0

    [told] = lines(answer.content)
    assert answer.status_code == 200
    assert told["detail"] == NO_NODES["detail"]
    assert told["error"]


async def test_a_job_wakes_a_machine_and_waits_for_it(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=1.0)
    async with hub(tmp_path, backend, timing=SOON) as proxy:
        answer = await job(proxy)

    assert answer.content.startswith(b"\n")
    assert lines(answer.content)[-1]["done"]


async def test_many_jobs_at_once_are_all_answered(tmp_path: Path) -> None:
    async def last(proxy: RunningProxy) -> Any:
        async with proxy.session.post(f"{proxy.url}/jobs", json=JOB) as answer:
            return lines(await answer.read())[-1]

    async with hub(tmp_path) as proxy:
        answers = await asyncio.gather(*(last(proxy) for _ in range(50)))

    assert all(one["done"] for one in answers)


async def test_a_job_counts_as_inference_and_is_listed_as_a_job(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend(Manners(rate=20.0))
    async with hub(tmp_path, backend) as proxy:
        asking = asyncio.ensure_future(job(proxy))
        await proxy.until(lambda: proxy.parts.pool.in_flight == 1)
        [active] = active_body(proxy.parts.active, 0.0)
        await asking
        counted = proxy.parts.metrics.render().decode()

    assert (active["route"], active["model"]) == ("/jobs", "tiny")
    assert 'ollama_proxy_requests_total{kind="inference",outcome="relayed"} 1' in (
        counted
    )


async def test_a_key_that_may_not_wake_waits_for_nothing(tmp_path: Path) -> None:
    sleeper = Rights(routes=frozenset({RouteClass.JOBS}), may_wake=False)
    backend = InProcessBackend()
    async with hub(tmp_path, backend, identify=Callers(ci=sleeper)) as proxy:
        async with asyncio.timeout(10.0):
            answer = await job(proxy, **bearer("ci"))

    assert answer.status_code == 503
    assert "may not start one" in answer.json()["error"]
    assert backend.launches == 0
