"""Which requests are interrupted with a key, and what becomes of their tasks."""

import asyncio
from typing import cast

from ollama_proxy.core.access.keys import Caller, Key, KeyId
from ollama_proxy.core.ollama.routes import classify
from ollama_proxy.serving.active_requests import ActiveRequests
from ollama_proxy.serving.interruptions import interruption_reply, take_interruption
from ollama_proxy.serving.pool_services import PoolServices
from ollama_proxy.serving.request_context import RequestContext

X, Y = KeyId("00000001"), KeyId("00000002")


def request(key_id: KeyId | None, path: str = "/api/chat") -> RequestContext:
    key = Key(key_id, "x", b"") if key_id is not None else None
    return RequestContext(
        "POST",
        path,
        "",
        classify("POST", path),
        served=cast("PoolServices", None),
        caller=Caller("10.0.0.1", key),
    )


class Requests:
    """Requests that wait for ever; notes which of them were interrupted."""

    def __init__(self) -> None:
        self.active = ActiveRequests()
        self.told: dict[str, str] = {}

    async def serve(self, name: str, context: RequestContext) -> None:
        self.active.begin(context, 1.0)
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError:
            if not take_interruption(context):
                raise
            self.told[name] = context.interrupted_by
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert not take_interruption(context)
        finally:
            self.active.end(context)

    def begin(self, name: str, context: RequestContext) -> "asyncio.Task[None]":
        return asyncio.get_running_loop().create_task(self.serve(name, context))


async def test_the_requests_of_a_key_are_interrupted_and_no_others() -> None:
    requests = Requests()
    tasks = {
        name: requests.begin(name, request(key_id))
        for name, key_id in {"one": X, "two": X, "other": Y, "none": None}.items()
    }
    requests.active.interrupt(X, "gone")  # none of them has begun to run
    await asyncio.wait({tasks["one"], tasks["two"]})

    assert requests.told == {"one": "gone", "two": "gone"}
    assert not tasks["other"].done()
    assert not tasks["none"].done()
    assert len(requests.active) == 2
    tasks["other"].cancel()  # its client leaves
    await asyncio.wait({tasks["other"]})
    assert tasks["other"].cancelled()
    tasks["none"].cancel()


async def test_several_keys_that_end_at_once_leave_no_request_of_theirs() -> None:
    requests = Requests()
    early = requests.begin("early", request(X))
    requests.active.interrupt(X, "gone")
    late = requests.begin("late", request(Y))  # begins to run after the first look
    requests.active.interrupt(Y, "off")
    await asyncio.wait({early, late}, timeout=5.0)

    assert requests.told == {"early": "gone", "late": "off"}


async def test_the_request_that_gives_the_order_is_spared() -> None:
    requests = Requests()
    other = requests.begin("other", request(X))
    own = request(X, "/-/keys/x")
    requests.active.begin(own, 1.0)
    requests.active.interrupt(X, "gone")
    await asyncio.sleep(0.05)

    assert own.interrupted_by == ""
    assert other.done()


async def test_a_second_order_does_not_disturb_the_words_of_the_first() -> None:
    active, context = ActiveRequests(), request(X)
    told = []

    async def serve() -> None:
        active.begin(context, 1.0)
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError:
            assert take_interruption(context)
            await asyncio.sleep(0.05)
            told.append(context.interrupted_by)

    task = asyncio.get_running_loop().create_task(serve())
    active.interrupt(X, "disabled")
    await asyncio.sleep(0.01)
    active.interrupt(X, "removed")
    await task

    assert told == ["disabled"]


def test_the_answer_is_a_401_in_the_words_of_the_protocol() -> None:
    for path, piece in {
        "/api/chat": b'{"error":"gone","status":"gone"}',
        "/v1/chat/completions": b'"code":"invalid_api_key"',
        "/v1/messages": b'"type":"authentication_error"',
    }.items():
        context = request(X, path)
        context.interrupted_by = "gone"
        reply = interruption_reply(context)
        assert reply.status == 401
        assert piece in reply.body
        assert b"gone" in reply.body
