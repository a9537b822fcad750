"""Tell which requests a real Ollama refuses whatever models it has: they wake nothing.

Each rule follows its handler and middleware (``middleware/``, v0.33) up to the first
access to the store, and no further: a refusal that depends on a model is left to the
instance.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from ollama_proxy.core.ollama import native_refusals
from ollama_proxy.core.ollama.anthropic_requests import MessagesRequest
from ollama_proxy.core.ollama.converted_requests import (
    chat_fault,
    completion_fault,
    messages_fault,
    responses_fault,
)
from ollama_proxy.core.ollama.go_decode import UnmarshalError, unmarshal
from ollama_proxy.core.ollama.go_json import (
    MOST_BYTES,
    MOST_TOKENS,
    Members,
    Number,
    UnreadBodyError,
    are_folded,
    folded,
    read_value,
)
from ollama_proxy.core.ollama.go_syntax import EmptyBodyError, GoSyntaxError
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.model_refs import Source, parse_ref
from ollama_proxy.core.ollama.native_refusals import Refusal
from ollama_proxy.core.ollama.ollama_requests import (
    ChatRequest,
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    EmbeddingRequest,
    EmbedRequest,
    GenerateRequest,
    PullRequest,
    PushRequest,
    ShowRequest,
)
from ollama_proxy.core.ollama.openai_requests import (
    ChatCompletionRequest,
    CompletionRequest,
)
from ollama_proxy.core.ollama.openai_requests import EmbedRequest as OpenAIEmbedRequest
from ollama_proxy.core.ollama.responses_requests import ResponsesRequest

_FOLLOWED = (0, 33)
_VERSION = re.compile(r"v?([0-9]{1,6})\.([0-9]{1,6})")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MARKS = (b",", b"[", b"{")

_Check = Callable[[Any], Refusal | None]


@dataclass(frozen=True, slots=True)
class _Rule:
    """Says how a route parses its body, and what it then refuses.

    ``is_compatible``: a ``/v1`` route, which passes a cloud model's request on to
    ollama.com unchecked.
    """

    shape: type[msgspec.Struct]
    check: _Check
    decoder: "msgspec.json.Decoder[Any]"
    is_compatible: bool


def refusal(route_name: str, body: bytes, version: str = "") -> Refusal | None:
    """Return how a route refuses a body; None if it may serve it, or is unknown.

    ``version``: of the Ollama that would serve the request. A later one than these
    rules follow may accept types or words that they refuse.
    """
    refused = _refusal(route_name, body)
    if refused is not None and refused.may_change and _is_later(version):
        return None
    return refused


def _is_later(version: str) -> bool:
    begun = _VERSION.match(version)
    return begun is not None and (int(begun[1]), int(begun[2])) > _FOLLOWED


def _refusal(route_name: str, body: bytes) -> Refusal | None:
    """Return how v0.33 refuses a body.

    msgspec parses most bodies a hundred times as fast as our reader, which reads as Go
    does. So only a body that msgspec rejects, that has keys in another case, or that
    would be refused is parsed by our reader. A body that is too large is left to the
    instance.
    """
    rule = _RULES.get(route_name)
    if rule is None or not _is_soon_read(body):
        return None
    try:
        is_as_given = are_folded(_MEMBERS.decode(body))
        if is_as_given and rule.check(rule.decoder.decode(body)) is None:
            return None
    except UNREADABLE:
        pass
    return _read_with_care(rule, body)


def _is_soon_read(body: bytes) -> bool:
    """Tell whether a body, and JSON inside its strings, can be parsed cheaply.

    Each value but the first has a comma or bracket before it, inside strings too.
    """
    if len(body) <= MOST_TOKENS:
        return True
    if len(body) > MOST_BYTES:
        return False
    return sum(body.count(mark) for mark in _MARKS) <= MOST_TOKENS


def _read_with_care(rule: _Rule, body: bytes) -> Refusal | None:
    try:
        value = read_value(body)
        if rule.is_compatible and _names_cloud_model(value):
            return None
        return rule.check(unmarshal(value, rule.shape))
    except EmptyBodyError as error:
        missing = str(error) if rule.is_compatible else "missing request body"
        return Refusal(400, missing)
    except GoSyntaxError as error:
        return Refusal(400, str(error))
    except UnmarshalError as error:
        return Refusal(400, str(error), may_change=True)
    except (UnreadBodyError, RecursionError):
        return None


def _translated(refused: Refusal | None) -> Refusal | None:
    if refused is None:
        return None
    return replace(refused, is_translated=True, has_charset=False)


def _openai_chat(request: ChatCompletionRequest) -> Refusal | None:
    if not request.messages:
        return Refusal(400, "[] is too short - 'messages'")
    if (fault := chat_fault(request)) is not None:
        return Refusal(400, fault, may_change=True)
    return _translated(native_refusals.chat(request.model, request.top_logprobs))


def _openai_completion(request: CompletionRequest) -> Refusal | None:
    if (fault := completion_fault(request)) is not None:
        return Refusal(400, fault, may_change=True)
    logprobs = max(request.logprobs or 0, 0)
    return _translated(native_refusals.generate(request.model, logprobs))


def _openai_embed(request: OpenAIEmbedRequest) -> Refusal | None:
    wanted = request.encoding_format
    if wanted and folded(wanted) not in {"float", "base64"}:
        return Refusal(
            400,
            f"Invalid value for 'encoding_format' = {wanted}. "
            "Supported values: ['float', 'base64'].",
            may_change=True,
        )
    if request.input is None or request.input == []:
        return Refusal(400, "invalid input")
    return _translated(native_refusals.embed(request.model, request.input))


def _openai_responses(request: ResponsesRequest) -> Refusal | None:
    if (fault := responses_fault(request)) is not None:
        return Refusal(400, fault, may_change=True)
    return _translated(native_refusals.chat(request.model, 0))


def _anthropic_messages(request: MessagesRequest) -> Refusal | None:
    if not request.model:
        return Refusal(400, "model is required")
    if request.max_tokens <= 0:
        return Refusal(400, "max_tokens is required and must be positive")
    if not request.messages:
        return Refusal(400, "messages is required")
    if (fault := messages_fault(request)) is not None:
        return Refusal(400, fault, may_change=True)
    return _translated(native_refusals.chat(request.model, 0))


def _names_cloud_model(value: Any) -> bool:
    named = dict(value).get("model") if isinstance(value, Members) else None
    if not isinstance(named, str) or isinstance(named, Number):
        return False
    try:
        return parse_ref(named).source is Source.CLOUD
    except ValueError:
        return False


def _generate(request: GenerateRequest) -> Refusal | None:
    return native_refusals.generate(request.model, request.top_logprobs)


def _chat(request: ChatRequest) -> Refusal | None:
    return native_refusals.chat(request.model, request.top_logprobs)


def _embed(request: EmbedRequest) -> Refusal | None:
    return native_refusals.embed(request.model, request.input)


def _embeddings(request: EmbeddingRequest) -> Refusal | None:
    return native_refusals.chat(request.model, 0)


def _native(shape: type[msgspec.Struct], check: _Check) -> _Rule:
    return _Rule(shape, check, msgspec.json.Decoder(shape), is_compatible=False)


def _compatible(shape: type[msgspec.Struct], check: _Check) -> _Rule:
    return _Rule(shape, check, msgspec.json.Decoder(shape), is_compatible=True)


_RULES = {
    "/api/generate": _native(GenerateRequest, _generate),
    "/api/chat": _native(ChatRequest, _chat),
    "/api/embed": _native(EmbedRequest, _embed),
    "/api/embeddings": _native(EmbeddingRequest, _embeddings),
    "/api/show": _native(ShowRequest, native_refusals.show),
    "/api/pull": _native(PullRequest, native_refusals.pull),
    "/api/push": _native(PushRequest, native_refusals.push),
    "/api/create": _native(CreateRequest, native_refusals.create),
    "/api/copy": _native(CopyRequest, native_refusals.copy),
    "/api/delete": _native(DeleteRequest, native_refusals.delete),
    "/v1/chat/completions": _compatible(ChatCompletionRequest, _openai_chat),
    "/v1/completions": _compatible(CompletionRequest, _openai_completion),
    "/v1/embeddings": _compatible(OpenAIEmbedRequest, _openai_embed),
    "/v1/responses": _compatible(ResponsesRequest, _openai_responses),
    "/v1/messages": _compatible(MessagesRequest, _anthropic_messages),
}
