"""Pulls that outlive their client, and clients that join a pull."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from ollama_proxy import pulls
from ollama_proxy.pulls import Pull, PullRequest
from ollama_proxy.simulator.server import Manners
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, lines, running_proxy

PULL = {"model": "new"}


@pytest.fixture
def backend() -> InProcessBackend:
    """Machines on which a pull takes half a second."""
    return InProcessBackend(Manners(pull_s=0.5))


@pytest.fixture
async def proxy(
    tmp_path: Path, backend: InProcessBackend
) -> AsyncIterator[RunningProxy]:
    async with running_proxy(tmp_path, backend=backend) as running:
        await running.wake()
        yield running


async def begin(proxy: RunningProxy, **more: object) -> aiohttp.ClientResponse:
    """Begin a pull and read its first line."""
    answer = await proxy.session.post(f"{proxy.url}/api/pull", json=PULL | more)
    await answer.content.readline()
    return answer


def pulls_at(backend: InProcessBackend) -> int:
    return backend.simulator.counters.requests["/api/pull"]


async def test_a_pull_goes_on_when_its_client_leaves(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    answer = await begin(proxy)
    answer.close()
    await proxy.until(lambda: bool(backend.simulator.store.get("new")))

    assert backend.simulator.counters.cancelled == 0


async def test_a_pull_without_a_client_keeps_the_instance(
    proxy: RunningProxy,
) -> None:
    answer = await begin(proxy)
    answer.close()
    await asyncio.sleep(0.1)
    status = await proxy.status()
    await proxy.until(lambda: not proxy.parts.pulls.under_way())

    assert status["in_flight"] == 1
    assert status["pulls"][0]["model"] == "new"
    assert proxy.parts.pool.in_flight == 0


async def test_a_second_client_joins_and_sees_how_far_it_is(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    first = await begin(proxy)
    await asyncio.sleep(0.2)
    async with proxy.session.post(
        f"{proxy.url}/api/pull", json={"name": "NEW:latest"}
    ) as second:
        told = lines(await second.read())
    first.close()

    assert pulls_at(backend) == 1
    assert told[0] == {"status": "pulling manifest"}
    assert told[1]["completed"] > 0
    assert told[-1] == {"status": "success"}


async def test_each_who_joins_is_told_the_end(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    async def pull(*, stream: bool) -> tuple[int, str, bytes]:
        body = PULL | {"stream": stream}
        async with proxy.session.post(f"{proxy.url}/api/pull", json=body) as answer:
            kind = answer.headers["Content-Type"]
            return answer.status, kind, (await answer.read()).splitlines()[-1]

    ends = await asyncio.gather(*(pull(stream=bool(n % 2)) for n in range(6)))

    success = b'{"status":"success"}'
    assert set(ends) == {
        (200, "application/json", success),
        (200, "application/x-ndjson", success),
    }
    assert pulls_at(backend) == 1


async def test_a_failed_pull_without_progress_is_a_500(proxy: RunningProxy) -> None:
    body = {"model": "missing", "stream": False}
    async with proxy.session.post(f"{proxy.url}/api/pull", json=body) as answer:
        text = await answer.text()

    assert answer.status == 500
    assert json.loads(text) == {"error": "pull model manifest: file does not exist"}


async def test_a_pull_whose_instance_is_lost_ends_in_an_error_for_all(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    first, second = await begin(proxy), await begin(proxy)
    await backend.preempt()
    for answer in (first, second):
        last = lines(await answer.read())[-1]
        assert last == {"error": "the instance was lost in the middle of the answer"}


async def test_a_whole_answer_to_a_pull_whose_instance_is_lost_is_no_success(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    async def pull() -> int:
        body = PULL | {"stream": False}
        async with proxy.session.post(f"{proxy.url}/api/pull", json=body) as answer:
            return answer.status

    pulling = asyncio.ensure_future(pull())
    await proxy.until(lambda: bool(proxy.parts.pulls.under_way()))
    await asyncio.sleep(0.1)
    await backend.preempt()

    assert await pulling == 503


async def test_a_pull_that_nobody_follows_and_that_is_stuck_is_given_up(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend()
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_STALL_TIMEOUT="200ms"
    ) as proxy:
        await proxy.wake()
        stuck = {"X-Simulator-Fault": "stall-after=3"}
        answer = await proxy.session.post(
            f"{proxy.url}/api/pull", json=PULL, headers=stuck
        )
        await answer.content.readline()
        answer.close()
        await proxy.until(lambda: backend.simulator.counters.cancelled == 1)

        assert proxy.parts.pool.in_flight == 0


async def test_pulls_end_with_their_client_if_told_so(
    tmp_path: Path, backend: InProcessBackend
) -> None:
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_DETACHED_PULLS="false"
    ) as proxy:
        await proxy.wake()
        answer = await begin(proxy)
        answer.close()
        await proxy.until(
            lambda: backend.simulator.counters.cancelled == 1, within_s=1.0
        )

        assert backend.simulator.store.get("new") is None


async def test_a_follower_that_is_too_far_behind_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulls, "_HISTORY_BYTES", 100)
    pull = Pull(PullRequest("m"))
    pull.say(b'{"status":"pulling manifest"}\n')
    following = pull.follow(joins=False)
    await anext(following)
    for number in range(10):
        pull.say(b'{"status":"pulling","total":10,"completed":%d}\n' % number)

    with pytest.raises(ConnectionResetError, match="takes nothing"):
        await anext(following)


async def test_who_joins_in_the_middle_of_a_line_gets_whole_lines() -> None:
    pull = Pull(PullRequest("m"))
    pull.say(b'{"status":"one"}\n{"sta')
    following = pull.follow(joins=True)
    first = await anext(following)
    pull.say(b'tus":"success"}\n')
    pull.end(None)
    rest = b"".join([data async for data in following])

    assert lines(first + rest) == [{"status": "one"}, {"status": "success"}]


async def test_who_joins_before_a_word_was_said_is_not_told_an_empty_one() -> None:
    pull = Pull(PullRequest(model="new"))
    followed = pull.follow(joins=True)
    first = asyncio.ensure_future(anext(followed))
    await asyncio.sleep(0)

    pull.say(b'{"status":"pulling manifest"}\n')

    assert await first == b'{"status":"pulling manifest"}\n'
    await followed.aclose()
    pull.end(None)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"new","stream":false,"\xff":1}',
        b'{"model":"new","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"model":7}',
        b"[1]",
        b"",
    ],
)
async def test_a_body_that_can_not_be_read_leaves_no_pull_behind(
    proxy: RunningProxy, body: bytes
) -> None:
    async with proxy.session.post(f"{proxy.url}/api/pull", data=body) as answer:
        await answer.read()
    await proxy.until(lambda: proxy.parts.pool.in_flight == 0, within_s=2.0)

    assert answer.status in {200, 400}
    assert proxy.parts.pulls.under_way() == []


async def test_a_client_that_waits_for_a_late_answer_follows(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_STALL_TIMEOUT="100ms") as proxy:
        await proxy.wake()
        late = {"X-Simulator-Fault": "delay=0.5"}
        async with proxy.session.post(
            f"{proxy.url}/api/pull", json=PULL, headers=late
        ) as answer:
            assert lines(await answer.read())[-1] == {"status": "success"}
