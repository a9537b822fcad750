"""Estimate the tokens of a request before it is sent: more than it will use. Pure.

The prompt counts a token for 3 bytes, the syntax of its JSON included, for what
templates and tools add is not seen here. A picture or sound counts 2 000 tokens and not
its base64.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.ollama.go_json import (
    Members,
    Number,
    UnreadBodyError,
    are_folded,
    folded,
    read_value,
)
from ollama_proxy.core.ollama.go_syntax import GoSyntaxError
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.routes import Route

BYTES_A_TOKEN: Final = 3
MEDIA_TOKENS: Final = 2_000
"""What a picture or a sound counts, whatever its size."""

MOST_TOKENS: Final = 10**12
"""The most that is reserved, so that sums stay within what a database stores."""

_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_WANTED: Final = frozenset({*_LIMITS, "options", "n"})
_MEDIA_KEYS: Final = (b"images", b"image_url", b"input_audio", b"source", b"file_data")
_MARKS: Final = (b"num_predict", b"max_", b'"n"', b"\\u", *_MEDIA_KEYS)
"""What a body holds that is more than text; ``\\u`` may write any other of these."""

_SMALL: Final = 16 * 1024
_MOST_MARKS: Final = 200_000  # commas and colons: some 30 ms of processor time
_LONGEST_NUMBER: Final = 30
_WHOLE = re.compile(rb"-?[0-9]+")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_NUMBERS = (int, float)


def work_of(route: Route, needed: RouteClass, model: str, body: bytes) -> Work:
    """Return the work that a complete body asks for.

    A change of models uses no tokens; a body that is no JSON counts as text, unless the
    route takes a sound.
    """
    if needed is RouteClass.WRITE:
        return Work(needed, model)
    if not route.takes_json and route.name != "other":
        return Work(needed, model, MEDIA_TOKENS, None)
    prompt = _text_tokens(len(body))
    if len(body) <= _SMALL and not any(map(body.lower().__contains__, _MARKS)):
        return Work(needed, model, prompt, 0 if needed is RouteClass.EMBED else None)
    members = _members(body)
    if members:
        sizes = list(_media_sizes(members, body))
        text = _text_tokens(len(body) - sum(sizes))
        prompt = text + MEDIA_TOKENS * len(sizes)
    if needed is RouteClass.EMBED:
        return Work(needed, model, prompt, 0)
    output, answers = _asked_for(members, body)
    return Work(needed, model, prompt, output, answers)


def tokens_to_reserve(work: Work, usual_output: int) -> int:
    """Return the tokens to reserve for a request, at least 1.

    ``usual_output``: tokens of an answer if the request sets no limit.
    """
    output = usual_output if work.output_tokens is None else work.output_tokens
    total = work.prompt_tokens + max(output, 0) * max(work.answers, 1)
    return min(max(total, 1), MOST_TOKENS)


def _text_tokens(size: int) -> int:
    return -(-max(size, 0) // BYTES_A_TOKEN)


def _asked_for(members: dict[str, msgspec.Raw], body: bytes) -> tuple[int | None, int]:
    """Return the tokens that an answer may have at most, and how many are asked for.

    None if the request sets no limit above zero.
    """
    fields = _limit_fields(members, body)
    options = fields.get("options")
    wanted = [fields.get(name) for name in _LIMITS]
    if isinstance(options, dict):
        wanted.append(options.get("num_predict"))
    limits = [limit for value in wanted if (limit := _whole(value)) is not None]
    most = max(limits, default=0)
    answers = _whole(fields.get("n")) or 1
    return (most if most > 0 else None), max(answers, 1)


def _limit_fields(members: dict[str, msgspec.Raw], body: bytes) -> dict[str, Any]:
    """Return the members that limit an answer, of equal ones those that Go takes.

    Go reads keys in any case, and adds a second object of options to the first.
    """
    is_plain = are_folded(members) and body.count(b'"options"') <= 1
    if members and is_plain:
        return {name: _decoded(members[name]) for name in _WANTED & members.keys()}
    try:
        value = read_value(body)
    except (GoSyntaxError, UnreadBodyError):
        return {}
    fields: dict[str, Any] = {}
    for key, member in value if isinstance(value, Members) else ():
        name = folded(key)
        if isinstance(member, Members) and isinstance(fields.get(name), dict):
            fields[name].update(member)
        elif name in _WANTED:
            fields[name] = dict(member) if isinstance(member, Members) else member
    return fields


def _whole(value: Any) -> int | None:
    """Return a whole number, however it is written; None for anything else."""
    if isinstance(value, Number):
        value = _decoded(value.encode())
    if isinstance(value, bool) or not isinstance(value, _NUMBERS):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return min(max(int(value), -MOST_TOKENS), MOST_TOKENS)


def _decoded(raw: msgspec.Raw | bytes) -> Any:
    """Return a small value; a long number is what is beyond every limit."""
    text = bytes(raw)
    if len(text) > _LONGEST_NUMBER and _WHOLE.fullmatch(text):
        return -MOST_TOKENS if text.startswith(b"-") else MOST_TOKENS
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        return None


def _media_sizes(members: dict[str, msgspec.Raw], body: bytes) -> Iterator[int]:
    """Yield the bytes of each picture and sound in a request.

    Only where Ollama's server looks for them: elsewhere the same letters are text.
    """
    lower = body.lower()
    if not any(key in lower for key in _MEDIA_KEYS):
        return
    if lower.count(b",") + lower.count(b":") > _MOST_MARKS:
        return
    top = _folded_members(members)
    yield from _strings(top.get("images"))
    for name in ("messages", "input"):
        for message in _elements(top.get(name)):
            fields = _folded_members(_members(message))
            yield from _strings(fields.get("images"))
            for content in ("content", "output"):
                for part in _elements(fields.get(content)):
                    yield from _of_part(part)


def _of_part(part: msgspec.Raw) -> Iterator[int]:
    """Yield the sizes in a part of a message: OpenAI's, or a block of Anthropic's."""
    fields = _folded_members(_members(part))
    yield from _of_block(fields)
    if bytes(fields.get("type", b"")) == b'"tool_result"':  # others are written out
        for block in _elements(fields.get("content")):
            yield from _of_block(_folded_members(_members(block)))


def _of_block(fields: dict[str, msgspec.Raw]) -> Iterator[int]:
    url = fields.get("image_url", msgspec.Raw())
    url = _members(url).get("url", url)
    if bytes(memoryview(url)[:6]) == b'"data:':
        yield from _string(url)
    yield from _string(_members(fields.get("input_audio", b"")).get("data"))
    source = _members(fields.get("source", b""))
    if bytes(source.get("type", b"")) == b'"base64"':
        yield from _string(source.get("data"))
    yield from _string(fields.get("file_data"))


def _strings(raw: msgspec.Raw | None) -> Iterator[int]:
    for element in _elements(raw):
        yield from _string(element)


def _string(raw: msgspec.Raw | None) -> Iterator[int]:
    if raw is not None and bytes(memoryview(raw)[:1]) == b'"':
        yield len(memoryview(raw))


def _folded_members(members: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {folded(name): value for name, value in members.items()}


def _members(raw: msgspec.Raw | bytes) -> dict[str, msgspec.Raw]:
    """Return the members of an object; none if it is no object."""
    try:
        return _MEMBERS.decode(raw)
    except UNREADABLE:
        return {}


def _elements(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    """Return the elements of a list; none if it is no list."""
    try:
        return [] if raw is None else _ELEMENTS.decode(raw)
    except UNREADABLE:
        return []
