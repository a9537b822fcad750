"""Which request is what: the table reads like Ollama's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.ollama.routes import ColdAnswer, Family, Kind, classify

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
