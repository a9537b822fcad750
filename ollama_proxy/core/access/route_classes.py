"""Name the right that a request needs: one class of routes for each request. Pure."""

from enum import StrEnum

from ollama_proxy.core.nodes.hub_routes import (
    AUTHORITY,
    HEARTBEAT,
    JOIN,
    NODES,
    RENEW,
    TUNNEL,
)
from ollama_proxy.core.ollama.routes import EMBEDDINGS, ColdAnswer, Kind, Route

_OPEN = frozenset(
    {
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/healthz"),
        ("HEAD", "/healthz"),
        ("POST", "/-/login"),
        ("POST", "/-/logout"),
    }
)
_READ_OF_OURS = frozenset(
    {"/status", "/metrics", "/-/", "/-/login", "/-/wait", "/-/usage"}
)
_OF_AGENTS = frozenset({HEARTBEAT, JOIN, AUTHORITY, RENEW, TUNNEL})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_CHANGES_ACCOUNT = frozenset({"/api/signout", "/api/user/keys/:key"})


class RouteClass(StrEnum):
    """Names a right to routes, as people write it after ``--routes``.

    ``ADMIN``: orders to the proxy. ``WRITE``: changes of models.
    """

    CHAT = "chat"
    EMBED = "embed"
    READ = "read"
    WRITE = "write"
    JOBS = "jobs"
    ADMIN = "admin"


_PLAIN = {
    Kind.WRITE: RouteClass.WRITE,
    Kind.READ: RouteClass.READ,
    Kind.INFERENCE: RouteClass.JOBS,  # of a job: the others are above
}

WORK = frozenset({RouteClass.CHAT, RouteClass.EMBED, RouteClass.WRITE, RouteClass.JOBS})
"""Classes of requests that keep an instance busy; limits count these."""


def route_class(method: str, path: str, route: Route) -> RouteClass | None:
    """Return the right that a request needs; None if it is open to everybody.

    ``path``: raw, without query. An unknown route that would change something needs
    ``write``, since its effect is unknown; one that the owner listed is work like a
    chat.
    """
    if route.kind is Kind.INFERENCE and not route.is_job:  # nearly always: each pays
        return RouteClass.EMBED if route.name in EMBEDDINGS else RouteClass.CHAT
    if (method, path) in _OPEN:
        return None
    match route.kind:
        case Kind.ADMIN:
            return _of_ours(path, route)
        case Kind.SYSTEM:
            return _of_system(route)
        case Kind.UNKNOWN:
            return _of_unknown(method, route)
        case _:
            return _PLAIN[route.kind]


def _of_ours(path: str, route: Route) -> RouteClass | None:
    """Return the right to a route of the proxy; agents prove themselves by others."""
    if route.name in _OF_AGENTS:
        return None
    is_read = path in _READ_OF_OURS or route.name == NODES
    return RouteClass.READ if is_read else RouteClass.ADMIN


def _of_system(route: Route) -> RouteClass:
    if route.asleep is ColdAnswer.CLOUD:  # a search that the owner's account pays
        return RouteClass.CHAT
    is_change = route.name in _CHANGES_ACCOUNT
    return RouteClass.WRITE if is_change else RouteClass.READ


def _of_unknown(method: str, route: Route) -> RouteClass:
    if method in _SAFE:
        return RouteClass.READ
    return RouteClass.CHAT if route.counts_as_use else RouteClass.WRITE
