"""What a real Ollama refuses without a model, we refuse; what it takes, we do not."""

import json
import shutil
import time
import tracemalloc
from collections.abc import Callable

import pytest

from ollama_proxy.core.ollama.cold_refusals import refusal
from ollama_proxy.core.ollama.native_refusals import Refusal, digest_refusal
from ollama_proxy.core.ollama.routes import classify
from tests.mutations import mutated_requests
from tests.recorded import ABSENT, Recorded
from tests.recordings import empty_ollama, load
from tests.taken_requests import taken_requests
from tests.wire import send

TAKEN = load("taken_requests")


def test_every_taken_request_misses_nothing_but_its_model() -> None:
    assert [request.name for request in taken_requests()] == list(TAKEN)
    assert {answer["status"] for answer in TAKEN.values()} == {404}


@pytest.mark.parametrize("request_", taken_requests(), ids=lambda r: r.name)
def test_a_request_that_ollama_takes_is_not_refused(request_: Recorded) -> None:
    route = classify("POST", request_.target)

    assert refusal(route.name, request_.body) is None


@pytest.mark.parametrize("request_", taken_requests(), ids=lambda r: r.name)
def test_nor_is_it_if_it_is_read_with_care(request_: Recorded) -> None:
    route = classify("POST", request_.target)

    assert refusal(route.name, request_.body + b"\x00") is None


@pytest.mark.real_ollama
@pytest.mark.skipif(shutil.which("ollama") is None, reason="there is no `ollama`")
async def test_whatever_is_refused_a_real_ollama_refuses_in_the_same_words() -> None:
    refused = [
        (request, expected)
        for request in mutated_requests(seed=12, count=1500)
        if (expected := refusal(request.target, request.body)) is not None
    ]
    assert len(refused) > 500
    async with empty_ollama() as port:
        for request, expected in refused:
            answer = await send(port, request.raw(close=False), method="POST")
            error = json.loads(answer.body)["error"]
            words = error if isinstance(error, str) else error["message"]
            assert words == expected.message, request.name
            assert int(answer.status.split()[1]) == expected.status, request.name


WIDENED = [
    ("/api/chat", {"model": "m", "think": "ultra"}),
    ("/api/embed", {"model": "m", "input": [1, 2]}),
    ("/v1/completions", {"model": "m", "prompt": ["a", "b"]}),
    ("/v1/responses", {"model": "m", "input": [{"type": "of_the_future"}]}),
    ("/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "int8"}),
]


@pytest.mark.parametrize(("path", "body"), WIDENED)
def test_what_a_later_ollama_may_take_is_left_to_it(path: str, body: object) -> None:
    raw = json.dumps(body).encode()

    for version in ("", "0.0.0", "0.33.7", "0.33.0-rc2", "dev"):
        assert refusal(path, raw, version) is not None
    for version in ("0.34.0", "v0.40.1", "1.0.0"):
        assert refusal(path, raw, version) is None


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/api/chat", b'{"model":"a/b/c/d"}'),
        ("/api/pull", b"{}"),
        ("/api/generate", b"{"),
        ("/v1/chat/completions", b'{"model":"m","messages":[]}'),
        ("/v1/messages", b'{"model":"m","max_tokens":0}'),
    ],
)
def test_what_none_can_take_is_refused_whatever_the_version(
    path: str, raw: bytes
) -> None:
    assert refusal(path, raw, "99.0.0") is not None


def test_a_refusal_of_a_native_handler_is_translated_on_v1() -> None:
    body = {"model": "a//b", "messages": [{"role": "user", "content": "hi"}]}
    raw = json.dumps(body).encode()

    assert refusal("/api/chat", raw) == Refusal(400, "invalid model name")
    assert refusal("/v1/chat/completions", raw) == Refusal(
        400, "invalid model name", is_translated=True, has_charset=False
    )


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_cloud_model_is_left_to_ollama_com_on_v1(path: str) -> None:
    assert refusal(path, b'{"model":"m:cloud","messages":5}') is None


def test_a_route_without_a_rule_refuses_nothing() -> None:
    assert refusal("/v1/audio/transcriptions", b"") is None
    assert refusal("other", b"{") is None


@pytest.mark.parametrize(
    ("digest", "is_one"),
    [
        (f"sha256:{ABSENT}", True),
        (f"sha256-{ABSENT}", True),
        (f"sha256%3A{ABSENT}", True),
        (f"sha256:{ABSENT}0", False),
        ("x", False),
    ],
)
def test_a_digest_that_is_none_is_refused(digest: str, *, is_one: bool) -> None:
    assert (digest_refusal(f"/api/blobs/{digest}") is None) is is_one


def _nested(depth: int) -> bytes:
    inner = b'{"properties":{"a":' * depth + b"{}" + b"}}" * depth
    tool = b'{"function":{"parameters":%b}}' % inner
    return b'{"model":"a//b","messages":[],"tools":[%b]}' % tool


@pytest.mark.parametrize("depth", [100, 400, 4_000])
def test_deep_nesting_breaks_nothing(depth: int) -> None:
    assert refusal("/api/chat", _nested(depth)) in {
        None,
        Refusal(400, "invalid model name"),
    }


MANY = 8_000_000
A_MOMENT_S = 0.5  # ten times what it takes here
# Made when they are asked for: together they take half a gigabyte.
HOSTILE: dict[str, Callable[[], bytes]] = {
    "numbers": lambda: b'{"model":"a//b","options":{"a":[' + b"1," * MANY + b"1]}}",
    "messages": lambda: b'{"model":"a//b","messages":[' + b"{}," * MANY + b"{}]}",
    "broken": lambda: b'{"model":"m","messages":[' + b"{}," * MANY + b"]}",
    "wrong": lambda: b'{"model":"m","messages":[' + b"5," * MANY + b"5]}",
    "image": lambda: b'{"model":"a//b","images":["' + b"QUFB" * MANY + b'!"]}',
    "think": lambda: b'{"model":"m","think":"' + b"\x7f" * 1_000_000 + b'"}',
    "few": lambda: b'{"model":"m","options":{"a":[' + b"1," * 100_000 + b'1]},"Raw":5}',
    "arguments of messages": lambda: (
        b'{"model":"m","messages":[{"tool_calls":[%b]}]}'
        % b",".join(
            [b'{"function":{"arguments":"{\\"a\\":[%b5}"}}' % (b"1," * 20_000)] * 20
        )
    ),
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/v1/chat/completions"])
def test_a_hostile_body_is_judged_or_left_in_little_time(name: str, path: str) -> None:
    body = HOSTILE[name]()
    begun_at = time.process_time()
    refusal(path, body)

    assert time.process_time() - begun_at < A_MOMENT_S


def test_a_hostile_body_takes_little_memory() -> None:
    body = HOSTILE["messages"]()
    tracemalloc.start()
    try:
        refusal("/api/chat", body)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert most < 100 * 1024 * 1024
