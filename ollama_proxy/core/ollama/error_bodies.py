"""Encode the proxy's own errors in the caller's API format.

Shapes are those of Ollama's own server (v0.33), on one line: its clients print them
unchanged. Pure: numbers and randomness are arguments.
"""

from typing import Any, NamedTuple

import msgspec

from ollama_proxy.core.ollama.routes import Family

JSON_TYPE = "application/json; charset=utf-8"
SPOKE = "X-Ollama-Proxy"
"""The header that the proxy's own responses have, and no instance's."""

_OPENAI_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
_HTML = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


class ProvisioningStatus(NamedTuple):
    """Says why there is no ready instance, for a client.

    ``status``: ``provisioning`` or ``error``. Durations are in seconds.
    ``retry_after``: None if a retry is useless until a person has acted. ``position``:
    the place in the queue that the request had, or would have.
    """

    status: str
    message: str
    stage: str | None
    progress: float | None
    elapsed_s: float | None
    eta_s: float | None
    retry_after: int | None
    position: int | None = None


def error_body(
    family: Family, status: int, message: str, *, request_id: str = ""
) -> bytes:
    """Return an error body of ``family`` on one line."""
    return msgspec.json.encode(_error(family, status, message, None, request_id))


def escape_html(body: bytes) -> bytes:
    """Return JSON as Go writes it: without characters that mean something in HTML."""
    for character, escaped in _HTML:
        body = body.replace(character, escaped)
    return body


def provisioning_body(
    family: Family, waiting: ProvisioningStatus, *, request_id: str = ""
) -> bytes:
    """Return the body of the 503 that is given while there is no instance."""
    body = _error(family, 503, waiting.message, waiting.status, request_id)
    if family is Family.NATIVE:
        body |= {
            "provisioning": waiting.status == "provisioning",
            "status": waiting.status,
            "stage": waiting.stage,
            "progress": waiting.progress,
            "elapsed_s": waiting.elapsed_s,
            "eta_s": waiting.eta_s,
            "position": waiting.position,
            "retry_after": waiting.retry_after,
        }
    return msgspec.json.encode(body)


def in_band_error(family: Family, message: str, *, request_id: str = "") -> bytes:
    """Return an error for a stream that has begun with status 200."""
    body = msgspec.json.encode(_error(family, 500, message, None, request_id))
    match family:
        case Family.NATIVE:
            return body + b"\n"
        case Family.OPENAI:
            return b"data: " + body + b"\n\n"
        case Family.ANTHROPIC:
            return b"event: error\ndata: " + body + b"\n\n"


def heartbeat(family: Family, position: int | None = None) -> bytes:
    """Return bytes that every parser of ``family`` skips before the first object.

    Spaces without a newline for NDJSON, an SSE comment, or an Anthropic ping.
    ``position``: the place in the queue, which an SSE comment tells, but the first.
    """
    match family:
        case Family.NATIVE:
            return b" "
        case Family.OPENAI:
            if position in {None, 1}:
                return b": starting\n\n"
            return b": waiting, position %d\n\n" % position
        case Family.ANTHROPIC:
            return b'event: ping\ndata: {"type":"ping"}\n\n'


def stream_type(family: Family) -> str:
    """Return the content type of a stream of ``family``."""
    return "application/x-ndjson" if family is Family.NATIVE else "text/event-stream"


def retry_after_s(eta_s: float | None, fraction: float) -> int:
    """Return after how many whole seconds, 1 to 60, a retry is worthwhile.

    Client libraries obey up to 60. ``fraction`` (0–1) spreads the clients over a
    quarter of the time, so that they do not all retry at once.
    """
    base = 15.0 if eta_s is None else max(eta_s, 1.0)
    soonest, latest = min(base, 48.0), min(base * 1.25, 60.0)
    return int(soonest + (latest - soonest) * fraction)


def empty_answer(route_name: str, model: str, created_at: str, reason: str) -> bytes:
    """Return Ollama's answer to a request that only loads or unloads a model."""
    said: dict[str, Any] = (
        {"message": {"role": "assistant", "content": ""}}
        if route_name == "/api/chat"
        else {"response": ""}
    )
    body = {"model": model, "created_at": created_at, **said}
    return msgspec.json.encode(body | {"done": True, "done_reason": reason})


def _error(
    family: Family, status: int, message: str, code: str | None, request_id: str
) -> dict[str, Any]:
    match family:
        case Family.NATIVE:
            return {"error": message}
        case Family.OPENAI:
            kind = _OPENAI_TYPES.get(status, "api_error")
            said = {"message": message, "type": kind, "param": None, "code": code}
            return {"error": said}
        case Family.ANTHROPIC:
            kind = _ANTHROPIC_TYPES.get(status, "api_error")
            body: dict[str, Any] = {
                "type": "error",
                "error": {"type": kind, "message": message},
            }
            return body | ({"request_id": request_id} if request_id else {})
