"""What of an answer is use of its instance, whichever way its bytes are cut."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from ollama_proxy.core.ollama.activity import watch

TOKEN = b'{"model":"tiny","response":"a","done":false}\n'
ERROR = b'{"error":"an error was encountered while running the model"}\n'
OPENAI_TOKEN = b'data: {"id":"chatcmpl-1","choices":[{"delta":{"content":"a"}}]}\n\n'
OPENAI_ERROR = b'data: {"error":{"message":"no","type":"api_error","code":null}}\n\n'
CLAUDE_START = b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n'
CLAUDE_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
CLAUDE_ERROR = (
    b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"no"}}'
    b"\n\n"
)
BUSY = "server busy, please try again.  maximum pending requests exceeded"


@dataclass
class Noted:
    """A claim that records its calls."""

    used: int = 0
    moved: int = 0

    def mark_used(self) -> None:
        self.used += 1

    def mark_moving(self) -> None:
        self.moved += 1


@dataclass
class Head:
    """Status and headers of an answer."""

    status: int = 200
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return CIMultiDictProxy(CIMultiDict(self.fields))


def noted(
    body: bytes,
    *,
    route: str = "/api/generate",
    head: Head | None = None,
    is_whole: bool = True,
    size: int = 1 << 20,
) -> Noted:
    """Feed an answer in pieces of a size; return the calls of its claim."""
    claim = Noted()
    use = watch(route, head or Head(), claim)
    for at in range(0, len(body), size):
        if not use.is_settled:
            use.take(body[at : at + size])
    use.end(is_whole=is_whole)
    use.end(is_whole=False)
    return claim


USE = {
    "a token": TOKEN,
    "a token and an error": TOKEN + ERROR,
    "a token after spaces": b"   \n " + TOKEN,
    "a token that speaks of errors": TOKEN.replace(b'"a"', rb'"\"error\": no"'),
    "an object without an end of line": TOKEN.strip(),
    "an object whose error is null": b'{"id":"resp_1","error":null,"output":[]}',
    "an object whose error is empty": b'{"id":"1","error":""}',
    "an openai token": OPENAI_TOKEN,
    "an openai token, with comments": b": starting\n\n: starting\n\n" + OPENAI_TOKEN,
    "an openai token, with returns": OPENAI_TOKEN.replace(b"\n", b"\r\n"),
    "an openai stream of nothing": b"data: [DONE]\n\n",
    "an event with an id": b"id: 1\nretry: 5\n" + OPENAI_TOKEN,
    "a response": b'event: response.created\ndata: {"type":"response.created"}\n\n',
    "an anthropic message": CLAUDE_PING + CLAUDE_START + CLAUDE_ERROR,
    "nothing": b"",
    "blank lines": b"\n\n  \n",
    "a text": b"a plain text",
    "a page": b"<html>\n",
    "no JSON": b'{"errors"',
    "a vector": b'{"model":"tiny","embeddings":[[' + b"0.1," * 40_000 + b"1]]}",
}
NO_USE = {
    "an error": ERROR,
    "an error without an end of line": ERROR.strip(),
    "an error after spaces": b"      " + ERROR,
    "an error with more": b'{"code":"x","error":"no","status":500}\n',
    "an openai error": OPENAI_ERROR,
    "an openai error, with comments": b": starting\n\n" + OPENAI_ERROR,
    "an openai error, with returns": OPENAI_ERROR.replace(b"\n", b"\r\n"),
    "an error event without data": b"event: error\n\n",
    "an anthropic error": CLAUDE_ERROR,
    "an anthropic error after pings": CLAUDE_PING * 3 + CLAUDE_ERROR,
    "a failed response": b'data: {"type":"response.failed"}\n\n',
    "another server's error": b'{"object":"error","message":"no","code":404}',
    "an error of ten lines of text": b'{"error":"' + b"why " * 5000 + b'"}\n',
}
SIZES = [1 << 20, 7, 1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", USE)
def test_an_answer_that_is_no_error_is_use(name: str, size: int) -> None:
    assert noted(USE[name], size=size).used == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NO_USE)
def test_an_answer_that_begins_with_an_error_is_none(name: str, size: int) -> None:
    assert noted(NO_USE[name], size=size).used == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "begun",
    [TOKEN, OPENAI_TOKEN, CLAUDE_START, TOKEN[:30], b"a plain text, cut", TOKEN * 3],
)
def test_what_breaks_off_after_it_began_is_use(begun: bytes, size: int) -> None:
    assert noted(begun, is_whole=False, size=size).used == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"  \n",
        b": starting\n\n",
        CLAUDE_PING,
        CLAUDE_PING[:30],
        ERROR,
        ERROR[:12],
        ERROR[:40],
        OPENAI_ERROR[:14],
        b"event: error\ndata: {",
    ],
)
def test_what_breaks_off_before_its_first_word_is_none(begun: bytes, size: int) -> None:
    assert noted(begun, is_whole=False, size=size).used == 0


@pytest.mark.parametrize("status", [301, 400, 401, 404, 429, 499, 500, 502, 503, 504])
def test_a_status_that_tells_of_no_success_is_no_use(status: int) -> None:
    assert noted(ERROR, head=Head(status)).used == 0
    assert noted(TOKEN, head=Head(status)).used == 0


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_success_without_a_body_is_use(status: int) -> None:
    assert noted(b"", head=Head(status), route="/api/copy").used == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "body",
    [
        f'{{"error":"{BUSY}"}}',
        f'{{"error":{{"message":"{BUSY}","type":"api_error","code":null}}}}',
        f'{{"type":"error","error":{{"type":"overloaded_error","message":"{BUSY}"}}}}',
    ],
)
def test_a_full_queue_is_use_in_any_familys_words(body: str, size: int) -> None:
    assert noted(body.encode(), head=Head(503), size=size).used == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":"the instance is starting, please retry"}',
        b'{"error":"model \'server busy\' not found"}',
        b"server busy",
        b'["server busy"]',
        b"",
    ],
)
def test_any_other_503_is_none(body: bytes) -> None:
    assert noted(body, head=Head(503)).used == 0
    assert noted(f'{{"error":"{BUSY}"}}'.encode(), head=Head(500)).used == 0


def test_an_encoded_answer_counts_by_its_status() -> None:
    packed = {"content-encoding": "gzip"}

    assert noted(b"\x1f\x8b\0", head=Head(200, packed)).used == 1
    assert noted(b"\x1f\x8b\0", head=Head(200, packed), is_whole=False).used == 1
    assert noted(b"\x1f\x8b\0", head=Head(200, packed), route="/api/pull").used == 1
    assert noted(b"\x1f\x8b\0", head=Head(503, packed)).used == 0
    assert noted(ERROR, head=Head(200, {"Content-Encoding": "identity"})).used == 0


def pulling(*completed: int, digest: str = "sha256:a") -> bytes:
    """Return the lines of a layer that has so many bytes, one after another."""
    line = '{{"status":"pulling a","digest":"{}","total":100,"completed":{}}}\n'
    return "".join(line.format(digest, done) for done in completed).encode()


MANIFEST = b'{"status":"pulling manifest"}\n'
MISSING = b'{"error":"pull model manifest: file does not exist"}\n'
SUCCESS = b'{"status":"success"}\n'


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("body", "used", "moved"),
    [
        (MANIFEST + MISSING, 0, 0),
        (MANIFEST * 50, 0, 0),
        (MANIFEST + pulling(0, 10, 20) + MISSING, 0, 2),
        (MANIFEST + pulling(50, 50, 50, 50), 0, 0),
        (pulling(0, 10) + pulling(0, 10, digest="sha256:b") + pulling(10), 0, 2),
        (pulling(0, 10, 5, 10), 0, 1),
        (MANIFEST + SUCCESS, 1, 0),
        (SUCCESS.strip(), 1, 0),
        (MISSING.strip(), 0, 0),
        (b'{"status":"success","error":"no"}\n', 0, 0),
        (b"no JSON\n\xff\n", 0, 0),
    ],
)
@pytest.mark.parametrize("route", ["/api/pull", "/api/push", "/api/create"])
def test_a_change_is_use_while_bytes_move_and_if_it_succeeds(
    route: str, body: bytes, used: int, moved: int, size: int
) -> None:
    claim = noted(body, route=route, size=size)

    assert (claim.used, claim.moved) == (used, moved)


def test_a_change_that_breaks_off_in_its_last_line_is_none() -> None:
    assert noted(SUCCESS.strip(), route="/api/pull", is_whole=False).used == 0


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*USE, *NO_USE]), st.data())
def test_where_an_answer_is_cut_changes_nothing(name: str, data: st.DataObject) -> None:
    body = (USE | NO_USE)[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    claim = Noted()
    use = watch("/api/chat", Head(), claim)
    for begin, end in itertools.pairwise([0, *cuts, len(body)]):
        if not use.is_settled:
            use.take(body[begin:end])
    use.end(is_whole=True)

    assert bool(claim.used) == (name in USE)


def test_spaces_that_keep_a_connection_alive_are_no_word() -> None:
    claim = Noted()
    use = watch("/api/chat", Head(), claim)
    for _ in range(10_000):
        use.take(b"  ")

    assert (use.is_settled, claim.used) == (False, 0)


def test_what_is_kept_of_an_answer_is_bounded() -> None:
    claim = Noted()
    use = watch("/api/generate", Head(), claim)
    for _ in range(3):
        use.take(b'{"model":"' + b"x" * 2000)

    assert (use.is_settled, claim.used) == (True, 1)
