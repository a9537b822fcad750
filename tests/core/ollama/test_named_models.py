"""Every model that a request names is found, or the request is not read at all."""

import contextlib
import json
import re
import time
from collections.abc import Callable

import pytest

from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.ollama.named_models import UnnamedError, models_named
from ollama_proxy.core.ollama.routes import classify
from tests.recorded import Recorded
from tests.recordings import load, odd_requests

RECORDED = load("odd_bodies")
_TAKEN = re.compile(r"model '(.+)' not found")


def named(line: str, body: bytes, kind: str = "", query: str = "") -> list[str]:
    method, path = line.split()
    route = classify(method, path)
    return models_named(route, body, content_type=kind, query=query)


CHAT, SHOW = "POST /api/chat", "POST /api/show"


@pytest.mark.parametrize(
    ("line", "body", "names"),
    [
        (CHAT, b'{"model":"a","messages":[]}', ["a"]),
        (CHAT, b'{"messages":[{"model":"no"}]}', []),
        (CHAT, b'{"name":"no"}', []),
        (CHAT, b"", []),
        (CHAT, b'{"model":"a","model":"b"}', ["b"]),
        (CHAT, b'{"model":"a","MODEL":"b"}', ["a", "b"]),
        (CHAT, b'{"model":"a","model":null}', ["a"]),
        (CHAT, '{"mod\\u0065l":"ä"} rest'.encode(), ["ä"]),
        (CHAT, b'{"model":""}', []),
        (SHOW, b'{"name":"a"}', ["a"]),
        (SHOW, b'{"name":"a","name":null}', ["a"]),
        (SHOW, b'{"model":"a","name":"b"}', ["a", "b"]),
        ("POST /api/copy", b'{"source":"a","destination":"b"}', ["a", "b"]),
        ("POST /api/copy", '{"ſource":"a","destination":"b"}'.encode(), ["a", "b"]),
        ("POST /api/create", b'{"model":"a","from":"b"}', ["a", "b"]),
        ("POST /api/create", b'{"name":"a","FROM":"b"}', ["a", "b"]),
        ("POST /v1/rerank", b'{"model":"a","name":"no"}', ["a"]),
        ("POST /api/experimental/web_search", b'{"query":"model"}', []),
        (CHAT, b'{"model":"a","x":"' + b":" * 1_100_000 + b'"}', ["a"]),
        (CHAT, b'{"x":"' + b":" * 1_100_000 + b'","model":"a"}', ["a"]),
    ],
)
def test_the_models_of_a_body(line: str, body: bytes, names: list[str]) -> None:
    assert named(line, body) == names


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"model"',
        b"{",
        b'{"model":"a"',
        b'{"model":5}',
        b'{"model":{"model":"a"}}',
        b'{"model":"a","Model":[]}',
        b'{"model":"' + b"x" * 5000 + b'","Model":"a"}',
        b"\xff\xfe{\x00}",
        b'{"a":[' + b"[]," * 200_000 + b'],"MODEL":"a"}',
    ],
)
def test_a_body_that_hides_its_model_is_not_read(body: bytes) -> None:
    with pytest.raises(UnnamedError):
        named(CHAT, body)


@pytest.mark.parametrize("request_", odd_requests(), ids=lambda request: request.name)
def test_the_model_that_a_real_ollama_took_is_among_them(request_: Recorded) -> None:
    answer = json.loads(RECORDED[request_.name]["body"].encode("latin-1"))
    taken = _TAKEN.search(answer["error"])
    with contextlib.suppress(UnnamedError):
        names = named("POST /api/generate", request_.body)
        if taken is not None:
            assert full_model_name(taken[1]) in {full_model_name(one) for one in names}


@pytest.mark.parametrize(
    "name",
    [
        "TINY",
        "library/tiny",
        "registry.ollama.ai/library/tiny:latest",
        "http://Registry.Ollama.ai/Library/Tiny",
        "other://registry.ollama.ai/library/tiny",
        "other/x://registry.ollama.ai/library/tiny",
        "tiny:local",
        "tiny: LOCAL",
        "tiny:latest:local ",
    ],
)
def test_a_model_has_one_name_however_it_is_written(name: str) -> None:
    """A real Ollama shows its model ``tiny`` by each of these."""
    assert full_model_name(name) == "tiny:latest"


FORM, KIND = "POST /v1/audio/transcriptions", "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
SOUND = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\r\n\r\n--c\r\n\r\n"
)
END = b"--b--\r\n"
QUOTED = b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
PLAIN = b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
MODEL = PART % (b"model", b"a")


@pytest.mark.parametrize(
    ("body", "kind", "query", "names"),
    [
        (SOUND + MODEL + END, KIND, "", ["a"]),
        (MODEL + SOUND + END, KIND, "", ["a"]),
        (MODEL + PART % (b"model", b"b") + END, KIND, "", ["a", "b"]),
        (MODEL + END, KIND, "model=q&model=r", ["q", "r", "a"]),
        (SOUND + END, 'multipart/form-data; boundary="b"', "", []),
        (MODEL.replace(b'"model"', b"model") + END, KIND, "", ["a"]),
        (MODEL.replace(b"\r\n\r\n", PLAIN) + END, KIND, "", ["a"]),
        (MODEL.replace(b"Content-D", b"content-d") + END[:-2], KIND, "", ["a"]),
    ],
)
def test_the_models_of_a_form(
    body: bytes, kind: str, query: str, names: list[str]
) -> None:
    assert named(FORM, body, kind, query) == names


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", KIND),
        (MODEL, KIND),
        (b'{"model":"a"}', "application/json"),
        (MODEL + END, "multipart/form-data"),
        (MODEL + END, "multipart/form-data; boundary=b; boundary=c"),
        (MODEL + END, "multipart/mixed; boundary=b"),
        (b"\r\n" + MODEL + END, KIND),
        (b"text\r\n" + MODEL + END, KIND),
        (MODEL + END + MODEL, KIND),
        (MODEL.replace(b"\r\n", b"\n") + END, KIND),
        (MODEL.replace(b"--b\r\n", b"--b \r\n") + SOUND + END, KIND),
        (SOUND + MODEL.replace(b"--b\r\n", b"--b\t\r\n") + END, KIND),
        (MODEL.replace(b'"model"', b'"mod\\el"') + END, KIND),
        (MODEL.replace(b'; name="model"', b"; name*=utf-8''model") + END, KIND),
        (MODEL.replace(b"; name", b";\r\n name") + END, KIND),
        (MODEL.replace(b'name="model"', b'name="x"; name="model"') + END, KIND),
        (MODEL.replace(b"form-data", b"attachment") + END, KIND),
        (MODEL.replace(b"Content-Disposition", b"Content-Type") + END, KIND),
        (MODEL.replace(b"\r\n\r\n", QUOTED) + END, KIND),
        (MODEL.replace(b"a\r\n", b"a\n") + SOUND + END, KIND),
        (MODEL.replace(b"a\r\n", b"a") + SOUND + END, KIND),
        (PART % (b"model", b"x" * 5000) + END, KIND),
        (PART * 1 % (b"n", b"") * 1100 + END, KIND),
    ],
    ids=range(23),
)
def test_a_form_that_may_be_read_in_two_ways_is_not_read(
    body: bytes, kind: str
) -> None:
    with pytest.raises(UnnamedError):
        named(FORM, body, kind)


MEGABYTES = 32 * 1024 * 1024
HOSTILE: dict[str, Callable[[], bytes]] = {
    "arrays": lambda: b"[" * MEGABYTES,
    "nested": lambda: b'{"a":' * (MEGABYTES // 5),
    "members": lambda: b"{" + b'"":0,' * (MEGABYTES // 5),
    "capital members": lambda: b'{"A":0' + b',"":0' * 2_000_000 + b"}",
    "texts": lambda: b'{"A":["' + b'","' * (MEGABYTES // 3) + b'"]}',
    "spaces": lambda: b'{"A":0' + b" " * MEGABYTES + b"}",
    "escapes": lambda: b'{"A":"' + b"\\n" * (MEGABYTES // 2) + b'"}',
    "models": lambda: b"{" + b'"Model":"a",' * 2_000_000 + b"}",
    "parts": lambda: MODEL * 500_000 + END,
    "half a part": lambda: b"--b\r\n" + b"\r" * MEGABYTES,
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("shape", HOSTILE)
@pytest.mark.parametrize("line", [CHAT, FORM])
def test_a_hostile_body_costs_little(line: str, shape: str) -> None:
    body = HOSTILE[shape]()
    begun_at = time.process_time()
    with contextlib.suppress(UnnamedError):
        named(line, body, KIND)

    assert time.process_time() - begun_at < 1.0  # five times what it takes here
