"""Which requests are the hub's, and which right each needs."""

import pytest

from ollama_proxy.core.access.route_classes import RouteClass, route_class
from ollama_proxy.core.nodes.hub_routes import CHAT_JOB, JOB, hub_route
from ollama_proxy.core.ollama.routes import classify


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("POST", "/jobs", RouteClass.JOBS),
        ("GET", "/nodes", RouteClass.READ),
        ("HEAD", "/nodes", RouteClass.READ),
        ("GET", "/nodes/box%20one", RouteClass.READ),
        ("GET", "/nodes/heartbeat", RouteClass.READ),
        ("POST", "/nodes/heartbeat", None),
        ("POST", "/nodes/join", None),
        ("GET", "/nodes/tunnel", None),
        ("GET", "/nodes/join/authority", None),
        ("POST", "/nodes/renew", None),
        ("GET", "/nodes/renew", RouteClass.READ),
        ("GET", "/nodes/join", RouteClass.READ),
    ],
)
def test_each_route_of_the_hub_needs_one_right(
    method: str, path: str, needed: RouteClass | None
) -> None:
    route = hub_route(method, path)

    assert route is not None
    assert route_class(method, path, route) is needed


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs"),
        ("POST", "/jobs/"),
        ("POST", "/nodes"),
        ("POST", "/nodes/%68eartbeat"),
        ("DELETE", "/nodes/box"),
        ("GET", "/nodesx"),
        ("GET", "/"),
        ("POST", "/api/generate"),
    ],
)
def test_all_else_is_not_the_hubs(method: str, path: str) -> None:
    assert hub_route(method, path) is None


@pytest.mark.parametrize("path", ["/jobs", "/nodes", "/nodes/heartbeat"])
def test_without_a_hub_its_paths_are_unknown_ones(path: str) -> None:
    needed = route_class("POST", path, classify("POST", path))

    assert needed is RouteClass.WRITE


def test_a_job_is_the_work_that_a_generation_or_a_chat_is() -> None:
    generate = classify("POST", "/api/generate")

    assert generate != JOB
    assert (JOB.kind, JOB.name, JOB.streams) == (
        generate.kind,
        generate.name,
        generate.streams,
    )
    assert CHAT_JOB.name == "/api/chat"
    assert CHAT_JOB.is_job
