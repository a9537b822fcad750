"""Read what the first bytes of an answer tell: its model, its prompt's tokens. Pure.

The body of the request names the model too, but may not be in memory any more.
"""

import msgspec

from ollama_proxy.core.access.token_figures import LARGEST_FIGURE
from ollama_proxy.core.ollama.body_model import model_in_json
from ollama_proxy.core.ollama.loose_json import UNREADABLE

_DATA = b"data:"
_INNER = (b'"message":', b'"response":')


class _Named(msgspec.Struct):
    """Holds the model that an answer names."""

    model: str = ""


class _Usage(msgspec.Struct):
    """Holds the tokens that the beginning of a message names."""

    input_tokens: int | None = None


class _Message(msgspec.Struct):
    """Holds a message before its first text."""

    usage: _Usage = msgspec.field(default_factory=_Usage)


class _MessageStart(msgspec.Struct):
    """Holds the first event of ``/v1/messages`` (``anthropic/anthropic.go``)."""

    message: _Message
    type: str = ""


def prompt_at_start(start: bytes) -> int | None:
    """Return the prompt's tokens as ``message_start`` tells them; None if it doesn't.

    An answer that breaks off has no other figure.
    """
    try:
        event = msgspec.json.decode(_first_object(start), type=_MessageStart)
    except UNREADABLE:
        return None
    tokens = event.message.usage.input_tokens
    is_figure = tokens is not None and 0 < tokens <= LARGEST_FIGURE
    return tokens if is_figure and event.type == "message_start" else None


def model_at_start(start: bytes) -> str:
    """Return the model that an answer names, as its request did; "" if it doesn't."""
    text = _first_object(start)
    try:
        model: str | None = msgspec.json.decode(text, type=_Named).model
    except UNREADABLE:
        model = model_in_json(text)  # its end is not here
    for name in _INNER:
        if not model and name in text:
            model = model_in_json(text.partition(name)[2])
    return model or ""


def _first_object(start: bytes) -> bytes:
    """Return the first object: of a line, or in the first event that has data."""
    for line in start.splitlines():
        if line.startswith(_DATA):
            return line.removeprefix(_DATA)
        if line.startswith(b"{"):
            return line
    return b""
