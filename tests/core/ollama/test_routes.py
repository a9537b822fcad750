"""Which request is what: the table reads like Ollama's."""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.ollama.routes import (
    BodyFields,
    ColdAnswer,
    Family,
    Kind,
    Need,
    classify,
    full_model_name,
    go_duration_s,
    need_of,
    read_fields,
    wants_stream,
)

WAKING = [
    ("POST", "/api/generate"),
    ("POST", "/api/chat"),
    ("POST", "/api/embed"),
    ("POST", "/api/embeddings"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/messages"),
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
    ("POST", "/api/blobs/sha256:00"),
]
QUIET = [
    ("GET", "/"),
    ("HEAD", "/"),
    ("GET", "/api/tags"),
    ("HEAD", "/api/tags"),
    ("POST", "/api/show"),
    ("GET", "/api/ps"),
    ("GET", "/api/version"),
    ("GET", "/api/status"),
    ("POST", "/api/me"),
    ("POST", "/api/signout"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
    ("HEAD", "/api/blobs/sha256:00"),
    ("GET", "/api/generate"),
    ("PUT", "/api/tags"),
    ("GET", "/favicon.ico"),
    ("OPTIONS", "/api/chat"),
    ("POST", "/api/experimental/web_search"),
    ("POST", "/api/of/the/future"),
    ("POST", "/v1/rerank"),
]


@pytest.mark.parametrize(("method", "path"), WAKING)
def test_what_needs_an_instance_wakes_one(method: str, path: str) -> None:
    assert classify(method, path).counts_as_use


@pytest.mark.parametrize(("method", "path"), QUIET)
def test_what_does_not_wakes_nothing(method: str, path: str) -> None:
    assert not classify(method, path).counts_as_use


@given(st.sampled_from(["GET", "HEAD", "OPTIONS"]), st.text(max_size=30))
def test_nothing_that_only_reads_ever_wakes(method: str, path: str) -> None:
    assert not classify(method, f"/{path}").counts_as_use


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("/api/chat", Family.NATIVE),
        ("/v1/chat/completions", Family.OPENAI),
        ("/v1/messages", Family.ANTHROPIC),
        ("/v1/nowhere", Family.OPENAI),
        ("/nowhere", Family.NATIVE),
    ],
)
def test_errors_are_told_in_the_callers_family(path: str, family: Family) -> None:
    assert classify("POST", path).family is family


def test_paths_are_case_sensitive() -> None:
    assert classify("GET", "/API/tags").asleep is ColdAnswer.NOT_FOUND


def test_a_known_path_with_another_method_is_not_allowed() -> None:
    assert classify("DELETE", "/api/chat").asleep is ColdAnswer.METHOD


def test_a_model_name_with_a_slash_is_a_plain_404() -> None:
    assert classify("GET", "/v1/models/hf.co/a").asleep is ColdAnswer.NOT_FOUND


def test_labels_never_hold_what_a_client_made_up() -> None:
    assert classify("GET", "/made/up").name == "other"
    assert classify("GET", "/v1/models/made-up").name == "/v1/models/:model"
    assert classify("GET", "/made/up").kind is Kind.UNKNOWN


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (b"0", 0),
        (b"0.0", 0),
        (b'"0"', 0),
        (b'"0s"', 0),
        (b'"0m"', 0),
        (b'"0h0m0s"', 0),
        (b"-1", -1),
        (b'"-1m"', -60),
        (b'"1h30m"', 5400),
        (b'"1.5s"', 1.5),
        (b"300", 300),
        (b"", None),
        (b"null", None),
        (b"true", None),
        (b'"soon"', None),
        (b"[]", None),
        (b'"\xff"', None),
        (b"9" * 401, 1e10),
        (b'"9999999h"', None),  # more nanoseconds than Go can count
    ],
)
def test_keep_alive_is_read_as_go_reads_it(raw: bytes, seconds: float | None) -> None:
    assert go_duration_s(raw) == seconds


@pytest.mark.parametrize("text", ["1" * 1000, "1" * 50_000, "1." * 500, "1h" * 50_000])
def test_a_long_keep_alive_costs_nobody_a_second(text: str) -> None:
    begun = time.process_time()

    assert go_duration_s(msgspec.json.encode(text)) is None or len(text) <= 1024
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("path", "body", "need"),
    [
        ("/api/generate", b'{"model":"m","keep_alive":0}', Need.UNLOAD),
        ("/api/generate", b'{"name":"m","prompt":"","keep_alive":"0s"}', Need.UNLOAD),
        ("/api/generate", b'{"model":"m","prompt":"x","keep_alive":0}', Need.INSTANCE),
        ("/api/generate", b'{"model":"m"}', Need.LOAD),
        ("/api/generate", b'{"model":"m","keep_alive":"5m"}', Need.LOAD),
        ("/api/chat", b'{"model":"m","messages":[ ],"keep_alive":0}', Need.UNLOAD),
        ("/api/chat", b'{"model":"m","messages":[{}],"keep_alive":0}', Need.INSTANCE),
        ("/api/chat", b'{"Model":"m","Messages":null}', Need.LOAD),
        ("/api/embed", b'{"model":"m","keep_alive":0}', Need.INSTANCE),
        ("/api/chat", b'{"messages":[{}]}', Need.NO_MODEL),
        ("/api/chat", b'{"model":"m:cloud","messages":[{}]}', Need.CLOUD),
        ("/v1/responses", b'{"model":"M:120B-Cloud","input":"x"}', Need.CLOUD),
        ("/v1/responses", b'{"model":"host:1/m-cloud","input":"x"}', Need.INSTANCE),
        ("/v1/responses", b'{"model":"my-cloud","input":"x"}', Need.INSTANCE),
        ("/v1/responses", b'{"model":"cloud","input":"x"}', Need.INSTANCE),
    ],
)
def test_the_body_tells_what_an_inference_request_needs(
    path: str, body: bytes, need: Need
) -> None:
    assert need_of(path, read_fields(body)) is need


def test_the_model_is_the_first_name_that_is_not_empty() -> None:
    assert read_fields(b'{"model":"","name":"tiny"}').model_name == "tiny"
    assert read_fields(b'{"model":"a","name":"b"}').model_name == "a"


@pytest.mark.parametrize(
    "body", [b"", b" ", b"{", b"[]", b'{"model":1}', b"\xff", b'"x"']
)
def test_a_body_that_is_no_object_of_that_shape_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are Go's, by body
        read_fields(body)


@pytest.mark.parametrize(
    ("path", "stream", "wanted"),
    [
        ("/api/generate", None, True),
        ("/api/generate", False, False),
        ("/v1/chat/completions", None, False),
        ("/v1/chat/completions", True, True),
        ("/api/embed", True, False),
    ],
)
def test_each_family_has_its_own_default_for_streams(
    path: str, *, stream: bool | None, wanted: bool
) -> None:
    assert wants_stream(classify("POST", path), BodyFields(stream=stream)) is wanted


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("Tiny", "tiny:latest"),
        ("tiny:7b", "tiny:7b"),
        ("hf.co/User/repo", "hf.co/user/repo:latest"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
    ],
)
def test_names_are_resolved_with_tag_and_without_case(name: str, full: str) -> None:
    assert full_model_name(name) == full


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("Tiny", "tiny:latest"),
        ("registry.ollama.ai/library/tiny:1b", "tiny:1b"),
        ("library/tiny", "tiny:latest"),
        ("https://hf.co/A/B", "hf.co/a/b:latest"),
        ("localhost:5000/me/tiny", "localhost:5000/me/tiny:latest"),
        ("tiny:local", "tiny:latest"),
        ("gpt-oss:120b:cloud", "gpt-oss:120b-cloud"),
        ("gpt-oss:cloud", "gpt-oss:cloud"),
    ],
)
def test_names_are_resolved_as_the_store_does(name: str, full: str) -> None:
    assert full_model_name(name) == full


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{}],"verbose":1,"name":{}}',
        b'{"model":"m","messages":[{}],"keep_alive":"\xff"}',
    ],
)
def test_what_a_route_does_not_know_is_not_looked_at(body: bytes) -> None:
    assert need_of("/api/chat", read_fields(body)) is Need.INSTANCE
