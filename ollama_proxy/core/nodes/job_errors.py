"""Write what a job gets in place of an answer, as the former hub had it. Pure."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.activity import error_text
from ollama_proxy.core.ollama.error_bodies import JSON_TYPE

NO_NODES: Final = "No healthy nodes available for requested model"
ALL_FAILED: Final = "All candidate nodes failed to execute the job"

_JSON: Final = ("Content-Type", JSON_TYPE)
_LONGEST = 1000
_NOT_FOUND, _UNAVAILABLE = 404, 503
_FRAMING: Final = frozenset({"content-type", "content-length"})


class NodeFailure(NamedTuple):
    """Holds what one node did with a job: ``status`` is None if it did not answer."""

    node_id: str
    message: str
    status: int | None


def bad_job(message: str, status: int) -> Reply:
    """Return the refusal of a body that is no job."""
    return _reply(status, {"detail": message})


def no_nodes(reason: str = "") -> Reply:
    """Return the answer if no node takes a job; ``reason``: what else is known."""
    body: dict[str, Any] = {"detail": NO_NODES}
    return _reply(_UNAVAILABLE, body | ({"error": reason} if reason else {}))


def all_failed(failures: Sequence[NodeFailure], job_id: str) -> Reply:
    """Return the answer to a job that every node failed which was tried.

    ``job_id``: a UUID in its usual form.
    """
    errors = [failure._asdict() for failure in failures]
    detail = {"message": ALL_FAILED, "errors": errors, "job_id": job_id}
    return _reply(_UNAVAILABLE, {"detail": detail})


def refusal(status: int, message: str) -> Reply:
    """Return a refusal with its sentence for former clients, and for Ollama's."""
    return _reply(status, {"detail": message, "error": message})


def in_old_shape(reply: Reply) -> Reply:
    """Return a refusal of the proxy or of a node with its sentence as ``detail``.

    It keeps its status, its hints for programs, and the ``error`` of Ollama's clients.
    A model that no node has means: there is no node for it.
    """
    hints = [field for field in reply.headers if field[0].lower() not in _FRAMING]
    if reply.status == _NOT_FOUND:
        return no_nodes().with_headers(*hints)
    message = error_text(reply.body) or reply.body[:_LONGEST].decode("utf-8", "replace")
    return refusal(reply.status, message).with_headers(*hints)


def _reply(status: int, body: dict[str, Any]) -> Reply:
    return Reply(status, msgspec.json.encode(body), (_JSON,))
