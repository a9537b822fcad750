"""Read the figures of tokens from the end of an answer, in each protocol's shape. Pure.

Ollama writes them into the last line (``Metrics`` in ``api/types.go``), the last event
(``Usage`` in ``openai/openai.go``, ``openai/responses.go``, ``anthropic/anthropic.go``)
or behind the vectors. Only the last bytes of an answer are kept, so its JSON is read
from somewhere in its middle.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.routes import EMBEDDINGS

LARGEST_FIGURE: Final = 10**9
"""No answer has more tokens: a larger figure is an error."""

USUAL_BYTES: Final = 4
"""Bytes of text that usually make one token; `token_estimate` reserves for fewer."""

_PROMPT, _OUTPUT = b'"prompt_eval_count"', b'"eval_count"'
_REASON, _USAGE = b'"done_reason"', b'"usage"'
_WITHOUT_WORK = frozenset({"load", "unload"})
_ENDED = frozenset({"response.completed", "response.incomplete", "response.failed"})
_ATTEMPTS = 8
_DATA = b"data:"
_FIRST_EVENTS = {"/v1/messages": 2, "/v1/responses": 4}
_NO_CONTENT = (b"[DONE]", b'"finish_reason":"', b'"done":true', b'"error":')
_ROOT, _IN_RESPONSE = b"{", b'{"response":{'


class TokenFigures(NamedTuple):
    """Holds the tokens of prompt and answer; None: the answer does not tell."""

    prompt: int | None = None
    output: int | None = None


class Tokens(NamedTuple):
    """Holds the tokens of a request; ``estimated``: how many of them are estimates."""

    prompt: int = 0
    output: int = 0
    estimated: int = 0


class _Usage(msgspec.Struct):
    """Holds the figures of the families with ``usage``."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def figures(self) -> TokenFigures:
        """Return them; none if all are zero, as in the chunks before the last."""
        prompt = _figure(self.prompt_tokens, self.input_tokens)
        output = _figure(self.completion_tokens, self.output_tokens)
        return TokenFigures(prompt, output) if prompt or output else TokenFigures()


class _End(msgspec.Struct):
    """Holds what the end of an object tells; all else is passed over."""

    model: str = ""
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    done_reason: str | None = None
    usage: _Usage | None = None


_END: Final = msgspec.json.Decoder(_End)


class _ResponseEnd(msgspec.Struct):
    """Holds the last event of ``/v1/responses``."""

    response: _End
    type: str = ""


_Shape = TypeVar("_Shape", _End, _ResponseEnd)


def figures_at_end(route_name: str, end: bytes, *, is_sse: bool) -> TokenFigures:
    """Return the figures in the last bytes of an answer, as far as they are there.

    ``is_sse``: it consists of server-sent events.
    """
    if is_sse:
        return _of_events(end)
    figures = _of_object(end)
    if route_name in EMBEDDINGS:
        return TokenFigures(figures.prompt, 0)
    return figures


def figures_of_body(route_name: str, body: bytes) -> tuple[TokenFigures, str] | None:
    """Return the figures and the model of a whole answer in one JSON object.

    None if it is none. One look at a short body is quicker than one from its end.
    """
    try:
        told = _END.decode(body)
    except UNREADABLE:
        return None
    figures = _native(told) if told.usage is None else told.usage.figures()
    if route_name in EMBEDDINGS:
        figures = TokenFigures(figures.prompt, 0)
    return figures, told.model


def content_chunks(route_name: str, chunks: int, last: Sequence[bytes]) -> int:
    """Return how many chunks of a stream have content; ``last`` are the last of them.

    Events that only begin a stream come first, and events that end it last.
    """
    ends = sum(any(mark in chunk for mark in _NO_CONTENT) for chunk in last)
    return max(chunks - ends - _FIRST_EVENTS.get(route_name, 0), 0)


def count_tokens(
    figures: TokenFigures, *, chunks: int, prompt_bytes: int, start: int | None = None
) -> Tokens:
    """Return the tokens of a request, with estimates for the figures that are missing.

    A chunk counts as one token, and four bytes of the prompt as well. ``start``: the
    number of tokens of the prompt that the beginning of the answer states.
    """
    prompt, output = figures.prompt, figures.output
    estimated = 0
    if prompt is None:
        prompt = start if start is not None else prompt_bytes // USUAL_BYTES
        estimated += prompt
    if output is None:
        output = chunks
        estimated += output
    return Tokens(prompt, output, estimated)


def _figure(*values: int | None) -> int | None:
    """Return the first value that may be a number of tokens; None if there is none."""
    for value in values:
        if value is not None and 0 <= value <= LARGEST_FIGURE:
            return value
    return None


def _of_object(end: bytes) -> TokenFigures:
    """Return the figures of a body that ends with a JSON object, a line perhaps."""
    told = _members(end, _USAGE, _ROOT, _End)
    if told is not None and told.usage is not None:
        return told.usage.figures()
    for key in (_PROMPT, _OUTPUT, _REASON):
        told = _members(end, key, _ROOT, _End)
        if told is not None:
            return _native(told)
    return TokenFigures()


def _native(told: _End) -> TokenFigures:
    """Return the figures of Ollama's own API."""
    prompt, output = told.prompt_eval_count, told.eval_count
    if prompt is not None and not 0 <= prompt <= LARGEST_FIGURE:
        prompt = None
    if output is not None and not 0 <= output <= LARGEST_FIGURE:
        output = None
    if prompt is not None and output is None:
        return TokenFigures(prompt, 0)  # Go leaves out a zero
    if prompt is None and output is None and told.done_reason in _WITHOUT_WORK:
        return TokenFigures(0, 0)
    return TokenFigures(prompt, output)


def _of_events(end: bytes) -> TokenFigures:
    """Return the figures of the last event that has some."""
    lines = [line for line in end.splitlines() if _USAGE in line]
    for line in reversed(lines[-_ATTEMPTS:]):
        told = _members(line, _USAGE, _ROOT, _End) or _of_response(line)
        if told is not None and told.usage is not None:
            return told.usage.figures()
    return TokenFigures()


def _of_response(line: bytes) -> _End | None:
    """Return the answer in the last event of ``/v1/responses``, whole or its end."""
    event = None
    if line.startswith(_DATA):
        event = _decoded(line.removeprefix(_DATA), _ResponseEnd)
    event = event or _members(line, _USAGE, _IN_RESPONSE, _ResponseEnd)
    return event.response if event is not None and event.type in _ENDED else None


def _members(
    end: bytes, key: bytes, above: bytes, shape: type[_Shape]
) -> _Shape | None:
    """Return the last members of an object, from ``key`` on; None if it has no such.

    ``above``: the beginning of an object as deep as the wanted one. JSON from ``key``
    on is whole behind it only if the key is that deep and is no part of a text: else
    brackets are left over, or a quote. So no prompt can have a figure taken from what
    it made the model write.
    """
    at = len(end)
    for _ in range(_ATTEMPTS):
        at = end.rfind(key, 0, at)
        if at < 0:
            return None
        found = _decoded(above + end[at:], shape)
        if found is not None:
            return found
    return None


def _decoded(text: bytes, shape: type[_Shape]) -> _Shape | None:
    try:
        return msgspec.json.decode(text, type=shape)
    except UNREADABLE:
        return None
