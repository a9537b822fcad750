"""Whether an answer is whole is seen as it passes, wherever its mark lies."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from ollama_proxy.core.http.chunks import framed
from ollama_proxy.core.ollama.answer_end import EndCheck, check_of

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer."""

    status: int
    headers: CIMultiDictProxy[str]


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer; ``over`` is what it may end with, at the earliest."""

    path: str
    content_type: str
    body: bytes
    over: bytes

    @property
    def over_at(self) -> int:
        return self.body.rindex(self.over) + len(self.over)


def head(content_type: str, status: int = 200, **headers: str) -> Head:
    fields = CIMultiDict({"content-type": content_type})
    fields.extend({name.replace("_", "-"): value for name, value in headers.items()})
    return Head(status, CIMultiDictProxy(fields))


def check(answer: Whole) -> EndCheck:
    made = check_of("POST", answer.path, head(answer.content_type))
    assert made is not None
    return made


def is_whole(answer: Whole, parts: list[bytes], *, in_chunks: bool = False) -> bool:
    one = check(answer)
    for part in parts:
        if in_chunks and part:
            one.add_chunks([framed(part)])
        else:
            one.add(part)
    return one.is_whole()


def line(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def event(name: str | None, /, **fields: Any) -> bytes:
    named = f"event: {name}\n".encode() if name else b""
    return named + b"data: " + line(**fields) + b"\n"


EVIL = 'he said "done":true, {"error":"x"} \\" "status":"success" data: [DONE]\n\\'
TOKEN = line(model="m", response=EVIL, done=False)
TOOL = line(
    message={"tool_calls": [{"arguments": {"done": True, "error": "no"}}]},
    error=None,
    done=False,
)
DONE = line(response="", done=True, done_reason="stop", context=[1, 2, [3]])
DELTA = event(None, choices=[{"delta": {"content": EVIL, "error": "x"}}], error=None)
ITEM = event(
    "response.output_item.done",
    type="response.output_item.done",
    item={"type": "response.completed", "status": "completed", "text": EVIL},
)
MESSAGE = {"status": "completed", "error": None, "output": [{"text": EVIL}]}
BLOCK = event(
    "content_block_delta",
    type="content_block_delta",
    delta={"type": "message_stop", "text": "event: message_stop\n" + EVIL},
)

ANSWERS = {
    "generate": Whole("/api/generate?x=/", NDJSON, TOKEN + DONE, DONE[:-1]),
    "chat": Whole("/api/chat", NDJSON + "; charset=utf-8", TOOL + DONE, DONE[:-1]),
    "spaced": Whole(
        "/api/chat",
        NDJSON,
        b'{"done": false}\r\n{ "a" : "b", "done" : true }\r\n',
        b'"done" : true }',
    ),
    "not the last": Whole("/api/chat", NDJSON, DONE + line(usage=1), DONE[:-1]),
    "error": Whole("/api/chat", NDJSON, TOKEN + line(error="x"), line(error="x")[:-1]),
    "error without end": Whole(
        "/api/generate", NDJSON, TOKEN + b'{"error":{"a":"b"}}', b'{"error":{"a":"b"}}'
    ),
    "pull": Whole(
        "/api/pull",
        NDJSON,
        line(status="pulling x", digest="success", completed=1)
        + line(status="success"),
        line(status="success")[:-1],
    ),
    "push error": Whole(
        "/api/push", NDJSON, line(status="a") + line(error="e"), line(error="e")[:-1]
    ),
    "create": Whole("/api/create", NDJSON, line(status="success"), b'"success"}'),
    "openai": Whole(
        "/v1/chat/completions", SSE, DELTA + DELTA + b"data: [DONE]\n\n", b": [DONE]"
    ),
    "openai without space": Whole(
        "/v1/completions", SSE, DELTA + b"data:[DONE]\r\n\r\n", b"data:[DONE]"
    ),
    "openai data error": Whole(
        "/v1/chat/completions",
        SSE,
        DELTA + event(None, error={"message": EVIL}),
        event(None, error={"message": EVIL})[:-2],
    ),
    "openai error event": Whole(
        "/v1/chat/completions",
        SSE,
        DELTA + event("error", message="x"),
        event("error", message="x")[:-2],
    ),
    "anthropic": Whole(
        "/v1/messages",
        SSE,
        b": hello\n\n" + BLOCK + event("message_stop", type="message_stop"),
        event("message_stop", type="message_stop")[:-2],
    ),
    "anthropic error": Whole(
        "/v1/messages",
        SSE,
        BLOCK + event("error", type="error", error={"type": "api_error"}),
        event("error", type="error", error={"type": "api_error"})[:-2],
    ),
    "anthropic without names": Whole(
        "/v1/messages",
        SSE,
        event(None, type="message_stop", index=1),
        event(None, type="message_stop", index=1)[:-2],
    ),
    "anthropic bare error": Whole(
        "/v1/messages",
        SSE,
        BLOCK + event(None, error={"message": "x"}),
        event(None, error={"message": "x"})[:-2],
    ),
    "responses without names": Whole(
        "/v1/responses",
        SSE,
        event(None, response=MESSAGE, type="response.completed"),
        event(None, response=MESSAGE, type="response.completed")[:-2],
    ),
    "json": Whole(
        "/api/chat",
        "application/json; charset=utf-8",
        line(message={"content": EVIL}, done=True),
        line(message={"content": EVIL}, done=True)[:-1],
    ),
    "json list": Whole("/v1/embeddings", "Application/JSON", b"[[1,2],[3]]", b"[3]]"),
    **{
        f"responses {name}": Whole(
            "/v1/responses",
            SSE,
            ITEM + event(f"response.{name}", response=MESSAGE),
            event(f"response.{name}", response=MESSAGE)[:-2],
        )
        for name in ("completed", "incomplete", "failed")
    },
    "responses error": Whole(
        "/v1/responses",
        SSE,
        ITEM + event("error", type="error", message="x"),
        event("error", type="error", message="x")[:-2],
    ),
}


@pytest.fixture(params=ANSWERS)
def answer(request: pytest.FixtureRequest) -> Whole:
    return ANSWERS[request.param]


def prefixes(answer: Whole) -> Iterator[tuple[bytes, bool]]:
    """Yield what may have come of an answer, and whether that is a whole one."""
    for size in range(len(answer.body) + 1):
        yield answer.body[:size], size >= answer.over_at


def test_it_is_whole_from_its_mark_on_and_not_before(answer: Whole) -> None:
    for came, expected in prefixes(answer):
        assert is_whole(answer, [came]) is expected, came


def test_a_mark_is_found_across_any_two_chunks(answer: Whole) -> None:
    body = answer.body
    for at in range(1, len(body)):
        assert is_whole(answer, [body[:at], body[at:]], in_chunks=True)


def test_a_mark_is_found_byte_by_byte(answer: Whole) -> None:
    one = check(answer)
    for at, byte in enumerate(answer.body):
        if at == answer.over_at - 1:
            assert not one.is_whole()
        one.add_chunks([framed(bytes([byte]))])

    assert one.is_whole()


@given(
    name=st.sampled_from(sorted(ANSWERS)),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
    size=st.integers(0, 3000),
)
def test_however_it_is_cut_up_it_is_whole_as_far_as_it_came(
    name: str, cuts: list[int], size: int
) -> None:
    answer = ANSWERS[name]
    size = size % (len(answer.body) + 1)
    bounds = [0, *sorted({cut for cut in cuts if cut < size}), size]
    parts = [answer.body[a:b] for a, b in itertools.pairwise(bounds)]

    assert is_whole(answer, parts, in_chunks=True) is (size >= answer.over_at)


FAR = {
    "context": Whole(
        "/api/generate",
        NDJSON,
        TOKEN + line(response="", done=True, context=list(range(100_000))),
        b"99999]}",
    ),
    "response": Whole(
        "/v1/responses",
        SSE,
        ITEM
        + event("response.completed", response={"text": EVIL * 20_000, "list": [{}]}),
        b'"list":[{}]}}',
    ),
    "mark behind a long text": Whole(
        "/api/chat",
        NDJSON,
        line(message={"content": EVIL * 20_000, "x": {"done": True}}, done=True),
        b'},"done":true}',
    ),
}


@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize("step", [997, 4096, 65_536, 10**7])
def test_a_mark_may_lie_far_from_the_end(name: str, step: int) -> None:
    answer = FAR[name]
    cut = answer.body[: answer.over_at - 1]
    parts = [answer.body[at : at + step] for at in range(0, len(answer.body), step)]
    early = [cut[at : at + step] for at in range(0, len(cut), step)]
    assert len(answer.body) > 500_000

    assert is_whole(answer, parts, in_chunks=True)
    assert not is_whole(answer, early, in_chunks=True)


@pytest.mark.parametrize(
    "data",
    [
        {"x": {"done": True}},
        {"done": False, "x": [{"done": True}]},
        {'x"done': True},
        {"x": '"done":true', "done": False},
        {"x": "\\", "y": ',"done":true', "done": False},
        {"error": None},
        {"xerror": "x"},
        ["done", True],
        [{"done": True}],
    ],
)
def test_what_only_looks_like_a_mark_is_none(data: Any) -> None:
    answer = Whole("/api/chat", NDJSON, json.dumps(data).encode() + b"\n", b"")
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps(data, separators=separators).encode()

        assert not is_whole(answer, [body, b"\n"])


def test_an_empty_stream_is_not_whole(answer: Whole) -> None:
    assert not check(answer).is_whole()


@pytest.mark.parametrize(
    ("method", "path", "came"),
    [
        ("POST", "/v1/rerank", head("application/json")),
        ("POST", "/api/tags", head("application/json")),
        ("GET", "/api/login", head(NDJSON)),
        ("HEAD", "/api/tags", head("application/json")),
        ("POST", "/api/chat", head(NDJSON, content_encoding="gzip")),
        ("POST", "/api/chat", head(NDJSON, content_length="7")),
        ("POST", "/api/chat", head("application/json", 404)),
        ("POST", "/api/chat", head("application/json", 500)),
        ("POST", "/api/chat", head("application/json", 204)),
        ("POST", "/api/chat", head("application/json", 304)),
        ("POST", "/v1/audio/transcriptions", head("text/plain")),
        ("POST", "/v1/audio/transcriptions", head(SSE)),
        ("POST", "/api/chat", head(SSE)),
        ("POST", "/v1/messages", head(NDJSON)),
        ("GET", "/", head("text/plain; charset=utf-8")),
        ("POST", "/api/chat", head("")),
    ],
)
def test_of_others_only_the_framing_tells(method: str, path: str, came: Head) -> None:
    assert check_of(method, path, came) is None


@pytest.mark.parametrize("body", [b"null", b'"text"', b"3"])
def test_json_without_brackets_is_whole(body: bytes) -> None:
    assert is_whole(Whole("/api/show", "application/json", body, b""), [body])
