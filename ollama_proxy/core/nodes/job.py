"""Read a job: what a client of the hub asks for, as Ollama gets it. Pure.

``{"model", "prompt", "options", "stream"}`` is the former form of a job, and what every
node takes on ``/execute``. Ours may have ``messages`` in place of the prompt, and
``format``, ``system`` and ``images``. Other keys that Ollama knows pass, byte for byte;
all else is left out, since Ollama would ignore it, and a former node might not.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from ollama_proxy.core.nodes.hub_routes import CHAT_JOB, JOB
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.routes import Route

MOST_BYTES: Final = 32 * 1024 * 1024
"""The longest body of a job: a prompt with pictures."""

_BOTH: Final = frozenset(
    {
        *("model", "options", "stream", "format", "keep_alive", "think"),
        *("truncate", "shift", "logprobs", "top_logprobs"),
    }
)
_GENERATE: Final = _BOTH | {
    *("prompt", "suffix", "system", "template", "context", "raw", "images"),
}
_CHAT: Final = _BOTH | {"messages", "tools"}
"""The keys of ``GenerateRequest`` and ``ChatRequest`` (v0.33, ``api/types.go``)."""

_TEXT, _LIST, _OBJECT, _TRUTH = b'"', b"[", b"{", b"tf"
_KINDS: Final = (
    ("model", _TEXT, "a text"),
    ("prompt", _TEXT, "a text"),
    ("system", _TEXT, "a text"),
    ("options", _OBJECT, "an object"),
    ("stream", _TRUTH, "true or false"),
    ("messages", _LIST, "a list"),
    ("images", _LIST, "a list"),
    ("format", _TEXT + _OBJECT, "a text or an object"),
)
"""What the value of each key begins with, and in words."""

_Members = dict[str, msgspec.Raw]
_MEMBERS: Final = msgspec.json.Decoder(_Members)
_MESSAGES: Final = msgspec.json.Decoder(list[_Members])
_MODEL: Final = msgspec.json.Decoder(str)


class JobError(Exception):
    """Reports a body that is no job: the status, and a sentence for its client."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Job:
    """Holds a job: ``body`` is what Ollama gets on ``route``."""

    model: str
    route: Route
    body: bytes
    streams: bool


def parse_job(body: bytes) -> Job:
    """Return the job that a body asks for; it streams unless it says otherwise.

    Raises `JobError`.
    """
    members = _members(body)
    model = _model_of(members)
    is_chat = "messages" in members
    if is_chat is ("prompt" in members):
        raise JobError("send a 'prompt' or 'messages', and not both")
    if is_chat and not members.keys().isdisjoint({"system", "images"}):
        members["messages"] = _with_all(members)
    known = _CHAT if is_chat else _GENERATE
    kept = {key: value for key, value in members.items() if key in known}
    kept.setdefault("stream", msgspec.Raw(b"true"))
    return Job(
        model=model,
        route=CHAT_JOB if is_chat else JOB,
        body=msgspec.json.encode(kept),
        streams=bytes(kept["stream"]) == b"true",
    )


def _members(body: bytes) -> _Members:
    """Return the members of a body whose kinds are right. Raises `JobError`.

    One that is null says nothing, and is left out.
    """
    try:
        read = _MEMBERS.decode(body)
    except msgspec.ValidationError as error:
        raise JobError(
            'the body is no object; send {"model": …, "prompt": …}'
        ) from error
    except UNREADABLE as error:
        raise JobError(f"the body is not JSON: {error}") from error
    members = {key: value for key, value in read.items() if bytes(value) != b"null"}
    for key, beginnings, words in _KINDS:
        if key in members and bytes(members[key])[:1] not in beginnings:
            raise JobError(f"'{key}' is not {words}")
    return members


def _model_of(members: _Members) -> str:
    """Return the model that a job names. Raises `JobError`."""
    try:
        model = _MODEL.decode(members.get("model", b'""'))
    except UNREADABLE as error:
        raise JobError(f"'model' can't be read: {error}") from error
    if not model:
        raise JobError("'model' is missing; GET /nodes lists the models of each node")
    return model


def _with_all(members: _Members) -> msgspec.Raw:
    """Return the messages with the job's system text first, and its pictures last.

    Ollama takes both within the messages of a chat alone. Raises `JobError`.
    """
    try:
        messages = _MESSAGES.decode(members["messages"])
    except UNREADABLE as error:
        words = 'a message is no object; send {"role": …, "content": …}'
        raise JobError(words) from error
    if "images" in members:
        if not messages or "images" in messages[-1]:
            raise JobError("'images' go to the last message, and it can't take them")
        messages[-1] = {**messages[-1], "images": members["images"]}
    if "system" in members:
        role = msgspec.Raw(b'"system"')
        messages.insert(0, {"role": role, "content": members["system"]})
    return msgspec.Raw(msgspec.json.encode(messages))
