"""Pulls that outlive their client, and clients that join a pull."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ollama_proxy.base.fd_limit import raise_limit
from ollama_proxy.serving.pull import Pull, PullRequest
from ollama_proxy.serving.shared_pulls import MOST_DETACHED
from ollama_proxy.simulator.server import Manners
from tests.fakes.instance import InProcessBackend
from tests.proxy import ORDERS, RunningProxy, lines, running_proxy

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
            lambda: backend.simulator.counters.cancelled == 1, within_s=10.0
        )

        assert backend.simulator.store.get("new") is None


async def test_a_follower_that_is_too_far_behind_is_let_go() -> None:
    pull = Pull(PullRequest("m"), most_bytes=100)
    pull.say(b'{"status":"pulling manifest"}\n')
    following = pull.follow(joins=False)
    await anext(following)
    for number in range(10):
        pull.say(b'{"status":"pulling","total":10,"completed":%d}\n' % number)

    with pytest.raises(ConnectionResetError, match="takes nothing"):
        await anext(following)


async def test_what_is_kept_for_those_who_join_is_bounded() -> None:
    pull = Pull(PullRequest("m"))
    pull.say(b'{"status":"pulling manifest"}\n')
    for number in range(1000):
        pull.say(b'{"status":"%d %b"}\n' % (number, b"x" * 60_000))
    following = pull.follow(joins=True)
    told = await anext(following)
    await following.aclose()
    pull.end(None)

    assert lines(told) == [{"status": "pulling manifest"}]


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


async def end(proxy: RunningProxy, path: str) -> tuple[int, dict[str, Any]]:
    """Order the end of a pull, by its name as it stands in the path."""
    raw = await proxy.raw(
        b"DELETE /-/pulls/%b HTTP/1.1\r\nHost: localhost\r\n"
        b"Authorization: %b\r\n"
        b"Connection: close\r\n\r\n" % (path.encode(), ORDERS["Authorization"].encode())
    )
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def test_a_pull_that_nobody_wants_any_more_is_ended_by_an_order(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    answer = await begin(proxy)
    answer.close()
    status, told = await end(proxy, "NEW")

    (ended,) = told["ended"]
    assert (status, ended["model"], ended["followers"]) == (200, "new", 0)
    assert ended["status"].startswith("pulling")
    assert proxy.parts.pulls.under_way() == []
    await proxy.until(lambda: backend.simulator.counters.cancelled == 1)
    assert backend.simulator.store.get("new") is None
    assert proxy.parts.pool.in_flight == 0


async def test_those_who_follow_a_pull_are_told_who_ended_it(
    proxy: RunningProxy,
) -> None:
    async def whole() -> tuple[int, bytes]:
        body = PULL | {"stream": False}
        async with proxy.session.post(f"{proxy.url}/api/pull", json=body) as answer:
            return answer.status, await answer.read()

    first, second = await begin(proxy), await begin(proxy)
    third = asyncio.ensure_future(whole())
    await proxy.until(lambda: proxy.parts.pulls.under_way()[0].followers == 3)
    await end(proxy, "new")

    error = {"error": "the pull of 'new' was ended by an order to the proxy"}
    for answer in (first, second):
        assert lines(await answer.read())[-1] == error
    status, body = await third
    assert (status, json.loads(body)) == (500, error)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("hf.co/some/model:Q4_K_M", "hf.co/some/model:Q4_K_M"),
        ("hf.co/some/model:Q4_K_M", "hf.co%2Fsome%2Fmodel%3AQ4_K_M"),
        ("new", "library%2FNEW:latest"),
        ("library/new:latest", "new"),
        ("http://127.0.0.1:5000/a/b", "http://127.0.0.1:5000/a/b"),
        ("http://127.0.0.1:5000/a/b", "127.0.0.1:5000%2fa/b"),
    ],
)
async def test_the_name_in_an_order_may_hold_slashes_and_colons(
    proxy: RunningProxy, backend: InProcessBackend, model: str, path: str
) -> None:
    backend.manners.pull_s = 30.0
    answer = await begin(proxy, model=model)
    other = await begin(proxy, model="other")
    status, told = await end(proxy, path)
    answer.close()
    other.close()

    assert (status, [pull["model"] for pull in told["ended"]]) == (200, [model])
    assert [pull.request.model for pull in proxy.parts.pulls.under_way()] == ["other"]


async def test_a_pull_of_either_kind_of_registry_is_ended(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    backend.manners.pull_s = 30.0
    secure, insecure = await begin(proxy), await begin(proxy, insecure=True)
    _, told = await end(proxy, "new")
    secure.close()
    insecure.close()

    assert len(told["ended"]) == 2
    assert proxy.parts.pulls.under_way() == []


@pytest.mark.parametrize("path", ["other", "", "%ff%00", "new/"])
async def test_an_order_to_end_a_pull_that_is_not_there_says_so(
    proxy: RunningProxy, path: str
) -> None:
    answer = await begin(proxy)
    status, told = await end(proxy, path)
    answer.close()

    assert status == 404
    assert "is under way" in told["error"]
    assert len(proxy.parts.pulls.under_way()) == 1


async def test_the_end_of_a_pull_is_not_ordered_by_a_web_page(
    proxy: RunningProxy,
) -> None:
    answer = await begin(proxy)
    async with proxy.session.delete(
        f"{proxy.url}/-/pulls/new", headers=ORDERS | {"Origin": "http://localhost:1"}
    ) as order:
        assert order.status == 403
    answer.close()

    assert len(proxy.parts.pulls.under_way()) == 1


async def test_deleting_a_model_that_is_being_pulled_ends_the_pull(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    backend.manners.pull_s = 30.0
    answer = await begin(proxy)
    async with proxy.session.delete(
        f"{proxy.url}/api/delete", json={"name": "NEW:latest"}
    ) as deleted:
        body = await deleted.read()
    told = lines(await answer.read())
    async with proxy.session.delete(
        f"{proxy.url}/api/delete", json={"name": "new"}
    ) as again:
        await again.read()

    assert (deleted.status, body, again.status) == (200, b"", 404)
    assert told[-1] == {
        "error": "the pull of 'new' was ended by a request to delete the model"
    }
    assert backend.simulator.counters.requests["/api/delete"] == 2


async def test_deleting_an_old_model_that_is_pulled_anew_deletes_it_too(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    backend.manners.pull_s = 30.0
    answer = await begin(proxy, model="tiny")
    answer.close()
    async with proxy.session.delete(
        f"{proxy.url}/api/delete", json={"model": "tiny"}
    ) as deleted:
        assert deleted.status == 200

    assert backend.simulator.store.get("tiny") is None
    assert proxy.parts.pulls.under_way() == []


async def test_of_hundreds_of_pulls_eight_outlive_their_clients(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    raise_limit()  # as a proxy does: each pull takes four descriptors here
    backend.manners.pull_s = 60.0
    unlimited = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=unlimited) as session:
        asked = [
            session.post(f"{proxy.url}/api/pull", json={"model": f"m{number}"})
            for number in range(600)
        ]
        answers = await asyncio.gather(*asked)
        going_on = len(proxy.parts.pulls.under_way())
        served = sum(answer.status == 200 for answer in answers)
        in_flight = proxy.parts.pool.in_flight
        for answer in answers:
            answer.close()
    await proxy.until(lambda: backend.simulator.counters.in_flight == MOST_DETACHED)

    assert going_on == MOST_DETACHED == 8
    assert served == 600 <= in_flight
    assert proxy.parts.pool.in_flight == MOST_DETACHED


async def test_when_a_pull_has_ended_another_may_outlive_its_client(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    backend.manners.pull_s = 30.0
    answers = [await begin(proxy, model=f"m{number}") for number in range(8)]
    await end(proxy, "m3")
    answers.append(await begin(proxy, model="late"))
    for answer in answers:
        answer.close()
    pulled = {pull.request.model for pull in proxy.parts.pulls.under_way()}

    assert pulled == {"late", *(f"m{number}" for number in range(8))} - {"m3"}


@pytest.mark.parametrize(
    ("stream", "status"),
    [(True, 200), (False, 500)],
)
async def test_a_pull_that_is_attached_to_its_client_is_ended_too(
    tmp_path: Path, *, stream: bool, status: int
) -> None:
    backend = InProcessBackend(Manners(pull_s=30.0))
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_DETACHED_PULLS="false"
    ) as proxy:
        await proxy.wake()
        body = PULL | {"stream": stream}
        asking = asyncio.ensure_future(
            proxy.session.post(f"{proxy.url}/api/pull", json=body)
        )
        await proxy.until(lambda: backend.simulator.counters.in_flight == 1)
        await asyncio.sleep(0.05)
        ended, _ = await end(proxy, "new")
        answer = await asking
        last = lines(await answer.read())[-1]

        assert (ended, answer.status) == (200, status)
        assert last == {"error": "the pull of 'new' was ended by an order to the proxy"}
        await proxy.until(lambda: backend.simulator.counters.cancelled == 1)


async def test_a_pull_that_was_ended_is_not_brought_back(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    answer = await begin(proxy)
    answer.close()
    await end(proxy, "new")

    assert proxy.store.sticky_models() == []


async def test_a_pull_is_ended_before_its_instance_has_said_a_word(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        late = {"X-Simulator-Fault": "delay=30"}
        asking = asyncio.ensure_future(
            proxy.session.post(f"{proxy.url}/api/pull", json=PULL, headers=late)
        )
        await proxy.until(lambda: bool(proxy.parts.pulls.under_way()))
        await end(proxy, "new")
        answer = await asking

        assert answer.status == 500
        assert lines(await answer.read()) == [
            {"error": "the pull of 'new' was ended by an order to the proxy"}
        ]
