"""Which requests a node can answer that serves ``POST /execute`` alone."""

from dataclasses import dataclass

import pytest

from ollama_proxy.core.nodes.plain_request import is_plain
from ollama_proxy.core.ollama.routes import classify
from ollama_proxy.core.request_facts import Facts

WHOLE = b'{"model":"tiny","prompt":"hi","options":{"seed":1},"stream":false}'


@dataclass
class Body:
    head: bytes
    complete: bool = True
    encoding: str = ""


def facts(
    body: bytes,
    path: str = "/api/generate",
    *,
    method: str = "POST",
    complete: bool = True,
    encoding: str = "",
) -> Facts:
    route = classify(method, path)
    return Facts(method, path, "", route, Body(body, complete, encoding))


@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        b'{"model":"tiny","prompt":"hi"}',
        b' {"stream":true,"prompt":"hi",\n"model":"tiny:latest"} ',
        b'{"model":"tiny","prompt":"hi","options":{}}',
    ],
)
def test_a_generation_from_a_prompt_alone_is_plain(body: bytes) -> None:
    assert is_plain(facts(body))


@pytest.mark.parametrize(
    "field",
    [
        b'"system":"be brief"',
        b'"images":[]',
        b'"format":"json"',
        b'"keep_alive":0',
        b'"raw":true',
        b'"suffix":"}"',
        b'"think":false',
        b'"context":[1]',
        b'"Prompt":"twice"',
        b'"options":null',
        b'"options":[]',
        b'"stream":"yes"',
        b'"stream":null',
    ],
)
def test_a_field_that_a_former_agent_does_not_know_or_read_is_not_plain(
    field: bytes,
) -> None:
    assert not is_plain(facts(b'{"model":"tiny","prompt":"hi",%b}' % field))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"model":"tiny"}',
        b'{"model":"tiny","prompt":""}',
        b'{"model":"","prompt":"hi"}',
        b'{"prompt":"hi"}',
        b'{"model":7,"prompt":"hi"}',
        b'{"model":"tiny","prompt":"\xff"}',
        WHOLE[:-1],
        WHOLE + WHOLE,
        b"[" * 100_000,
    ],
)
def test_a_body_without_model_and_prompt_is_not_plain(body: bytes) -> None:
    assert not is_plain(facts(body))


@pytest.mark.parametrize(
    "path", ["/api/chat", "/api/embed", "/v1/completions", "/v1/chat/completions", "/"]
)
def test_no_other_route_is_plain(path: str) -> None:
    assert not is_plain(facts(WHOLE, path))


def test_a_body_that_was_not_read_to_its_end_is_not_plain() -> None:
    assert not is_plain(facts(WHOLE, complete=False))
    assert not is_plain(facts(WHOLE, encoding="gzip"))
    assert not is_plain(facts(WHOLE, method="PUT"))
