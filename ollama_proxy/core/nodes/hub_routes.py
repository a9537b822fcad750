"""Recognise the routes of the hub, which are there only while it is on. Pure.

People and programs read ``/nodes`` and send ``/jobs``; agents send to routes below
``/nodes/`` and prove themselves there, by keys of their own.
"""

from dataclasses import replace
from typing import Final

from ollama_proxy.core.ollama.routes import ColdAnswer, Kind, Route, classify

JOBS: Final = "/jobs"
NODES: Final = "/nodes"
HEARTBEAT: Final = "/nodes/heartbeat"
JOIN: Final = "/nodes/join"
AUTHORITY: Final = "/nodes/join/authority"
RENEW: Final = "/nodes/renew"
TUNNEL: Final = "/nodes/tunnel"

JOB: Final = replace(classify("POST", "/api/generate"), is_job=True)
"""The route of a job, which a node carries out as it does a generation."""

CHAT_JOB: Final = replace(classify("POST", "/api/chat"), is_job=True)
"""The route of a job that has messages."""

_LIST = Route(Kind.ADMIN, ColdAnswer.NOT_FOUND, name=NODES)
_READS = frozenset({"GET", "HEAD"})
_OF_AGENTS = frozenset(
    {
        ("POST", HEARTBEAT),
        ("POST", JOIN),
        ("GET", AUTHORITY),
        ("POST", RENEW),
        ("GET", TUNNEL),
    }
)


def hub_route(method: str, path: str) -> Route | None:
    """Return the hub's route for a request; None if it is none of the hub's.

    ``path``: raw, without query.
    """
    if path == JOBS:
        return JOB if method == "POST" else None
    if (method, path) in _OF_AGENTS:
        return Route(Kind.ADMIN, ColdAnswer.NOT_FOUND, name=path)
    is_nodes = path == NODES or path.startswith(f"{NODES}/")
    return _LIST if is_nodes and method in _READS else None


def has_old_shape(route: Route) -> bool:
    """Tell whether clients of the former hub send this, and read its refusals."""
    return route.is_job or route.name == NODES
