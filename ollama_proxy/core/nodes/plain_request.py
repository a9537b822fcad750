"""Tell which requests a node can answer that serves ``POST /execute`` alone. Pure.

That is every former agent, and one of ours that has not joined. `EXECUTE` takes the
body of a generation, and gives the same answer as Ollama's ``/api/generate``.
"""

from typing import Final

import msgspec

from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.request_facts import Facts

EXECUTE: Final = "/execute"
"""The path to which such a request goes."""

_GENERATE = "/api/generate"


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """Holds all that a former agent reads of a body."""

    model: str
    prompt: str
    options: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)
    stream: bool = True


def is_plain(facts: Facts) -> bool:
    """Tell whether a request is a generation from model, prompt, options and stream.

    With any other field, a former agent would answer something else without a word. A
    request without a prompt loads a model, of which such agents know nothing.
    """
    body = facts.body
    if facts.route.name != _GENERATE or facts.method != "POST":
        return False
    if not body.complete or body.encoding:
        return False
    try:
        read = msgspec.json.decode(body.head, type=_Body)
    except UNREADABLE:
        return False
    return bool(read.model and read.prompt)
