"""Refuse in the shape of each family, and as Go's router does."""

import re
from typing import Any

from aiohttp import web

from ollama_proxy.core.ollama.routes import classify
from ollama_proxy.simulator.requests import model_name
from ollama_proxy.simulator.wire import reply


def openai_error(status: int, message: str) -> web.Response:
    """Return an error in OpenAI's shape."""
    kinds = {400: "invalid_request_error", 404: "not_found_error"}
    kind = kinds.get(status, "api_error")
    error = {"message": message, "type": kind, "param": None, "code": None}
    return reply({"error": error}, status, native=False)


def unknown_model(body: dict[str, Any]) -> web.Response:
    """Return that the model of a request is not there, in OpenAI's shape."""
    return openai_error(404, f"model '{model_name(body)}' not found")


def anthropic_error(status: int, message: str) -> web.Response:
    """Return an error in Anthropic's shape."""
    kinds = {400: "invalid_request_error", 404: "not_found_error"}
    error = {"type": kinds.get(status, "api_error"), "message": message}
    body = {"type": "error", "error": error, "request_id": "req_simulated"}
    return reply(body, status, native=False)


def refused(request: web.Request, error: web.HTTPException) -> web.Response:
    """Return what Ollama answers in place of an error of aiohttp."""
    if error.status == 400:  # noqa: PLR2004
        if request.path.startswith("/v1/messages"):
            return anthropic_error(400, error.text or "")
        if request.path.startswith("/v1/"):
            return openai_error(400, error.text or "")
        return reply({"error": error.text}, 400)
    if error.status == 405:  # noqa: PLR2004
        allowed = ", ".join(sorted(error.headers.get("Allow", "").split(","), key=len))
        return plain(405, "405 method not allowed", {"Allow": allowed})
    cleaned = re.sub("/+", "/", request.path).rstrip("/") or "/"
    if cleaned != request.path and classify(request.method, cleaned).name != "other":
        moved = 301 if request.method == "GET" and "//" not in request.path else 307
        return web.Response(status=moved, headers={"Location": cleaned})
    return plain(404, "404 page not found")


def plain(
    status: int, text: str, headers: dict[str, str] | None = None
) -> web.Response:
    """Answer as Go's router does: a text without a charset."""
    body = text.encode()
    return web.Response(
        status=status,
        body=body,
        headers={"Content-Type": "text/plain"} | (headers or {}),
    )
