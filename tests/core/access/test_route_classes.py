"""Which right each request needs."""

import pytest

from ollama_proxy.core.access.route_classes import RouteClass, route_class
from ollama_proxy.core.ollama.routes import ColdAnswer, Kind, Route, classify

CHAT, EMBED, READ = RouteClass.CHAT, RouteClass.EMBED, RouteClass.READ
WRITE, ADMIN = RouteClass.WRITE, RouteClass.ADMIN


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/", None),
        ("HEAD", "/", None),
        ("POST", "/", WRITE),
        ("GET", "/healthz", None),
        ("POST", "/healthz", ADMIN),
        ("POST", "/api/chat", CHAT),
        ("POST", "/api/generate", CHAT),
        ("POST", "/v1/responses", CHAT),
        ("POST", "/v1/audio/transcriptions", CHAT),
        ("POST", "/api/embed", EMBED),
        ("POST", "/api/embeddings", EMBED),
        ("POST", "/v1/embeddings", EMBED),
        ("GET", "/api/tags", READ),
        ("HEAD", "/api/blobs/sha256:00", READ),
        ("POST", "/api/blobs/sha256:00", WRITE),
        ("GET", "/v1/models/llama3", READ),
        ("POST", "/api/pull", WRITE),
        ("DELETE", "/api/delete", WRITE),
        ("GET", "/api/version", READ),
        ("POST", "/api/me", READ),
        ("POST", "/api/signout", WRITE),
        ("DELETE", "/api/user/keys/mine", WRITE),
        ("POST", "/api/experimental/web_search", CHAT),
        ("GET", "/new", READ),
        ("OPTIONS", "/new", READ),
        ("POST", "/new", WRITE),
        ("GET", "/api/chat", READ),
        ("GET", "/status", READ),
        ("GET", "/metrics", READ),
        ("GET", "/-/wait", READ),
        ("GET", "/-/usage", READ),
        ("POST", "/-/wake", ADMIN),
        ("GET", "/-/journal", ADMIN),
        ("GET", "/-/keys", ADMIN),
    ],
)
def test_each_request_needs_one_right(
    method: str, path: str, needed: RouteClass | None
) -> None:
    assert route_class(method, path, classify(method, path)) is needed


def test_an_unknown_route_that_wakes_is_work_like_a_chat() -> None:
    listed = Route(Kind.UNKNOWN, ColdAnswer.WAKE)

    assert route_class("POST", "/v1/rerank", listed) is CHAT
