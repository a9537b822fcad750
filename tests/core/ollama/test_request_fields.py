"""What the body of a request says that decides on it."""

import pytest

from ollama_proxy.core.ollama.request_fields import (
    BodyFields,
    Need,
    need_of,
    read_fields,
    wants_stream,
)
from ollama_proxy.core.ollama.routes import classify


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
    "body",
    [
        b'{"model":"m","messages":[{}],"verbose":1,"name":{}}',
        b'{"model":"m","messages":[{}],"keep_alive":"\xff"}',
    ],
)
def test_what_a_route_does_not_know_is_not_looked_at(body: bytes) -> None:
    assert need_of("/api/chat", read_fields(body)) is Need.INSTANCE
