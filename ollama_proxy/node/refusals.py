"""Word the agent's own errors, for Ollama's clients and for the former hub."""

import msgspec
from aiohttp import web


def refusal_body(message: str) -> bytes:
    """Return a body with the sentence where Ollama's clients and FastAPI's look."""
    return msgspec.json.encode({"error": message, "detail": message})


def refuse(
    status: int, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    """Return an answer with a sentence."""
    return web.Response(
        status=status,
        body=refusal_body(message),
        content_type="application/json",
        headers=headers,
    )
