"""Tell which ``/v1`` requests Ollama can't convert into its own.

The checks are those of ``FromChatRequest``, ``FromCompleteRequest``,
``FromResponsesRequest`` and ``FromMessagesRequest`` (v0.33), in their order. Each
returns Ollama's message, or None.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from ollama_proxy.core.ollama.anthropic_requests import (
    ContentBlock,
    ImageSource,
    MessagesRequest,
)
from ollama_proxy.core.ollama.anthropic_requests import Tool as AnthropicTool
from ollama_proxy.core.ollama.go_base64 import base64_fault
from ollama_proxy.core.ollama.go_decode import UnmarshalError, tree_of, unmarshal
from ollama_proxy.core.ollama.go_json import read_whole
from ollama_proxy.core.ollama.go_syntax import GoSyntaxError
from ollama_proxy.core.ollama.go_words import go_quoted, go_type_of
from ollama_proxy.core.ollama.ollama_messages import Arguments, ToolFunctionParameters
from ollama_proxy.core.ollama.openai_requests import (
    ChatCompletionRequest,
    CompletionRequest,
    Message,
)
from ollama_proxy.core.ollama.responses_requests import (
    ContentPart,
    InputItem,
    ResponsesRequest,
    ResponsesTool,
)

_INVALID_MESSAGE = "invalid message format"
_INVALID_IMAGE = "invalid image input"
_NO_IMAGE_URLS = (
    "image URLs are not currently supported, please use base64 encoded data instead"
)
_IMAGE_PREFIXES = (
    "data:;base64,",
    *(f"data:image/{kind};base64," for kind in ("jpeg", "jpg", "png", "webp")),
)
_EFFORTS = frozenset(
    {"", "none", "minimal", "low", "medium", "high", "max", "xhigh", "ultra"}
)
_EFFORTS_SHOWN = (
    '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'
)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def _first(faults: Iterable[str | None]) -> str | None:
    return next((fault for fault in faults if fault is not None), None)


def chat_fault(request: ChatCompletionRequest) -> str | None:
    """Return what is wrong with the messages or the effort of a chat."""
    fault = _first(_message_fault(message) for message in request.messages or [])
    effort = request.reasoning_effort or ""
    if request.reasoning is not None:
        effort = request.reasoning.effort
    return fault or _effort_fault(effort)


def _message_fault(message: Message) -> str | None:
    content = message.content
    if isinstance(content, list):
        fault = _first(_chat_part_fault(part) for part in content)
        return fault or (_calls_fault(message) if content else None)
    if not isinstance(content, str) and message.tool_calls is None:
        return f"invalid message content type: {go_type_of(content)}"
    return _calls_fault(message)


def _chat_part_fault(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return None if isinstance(part.get("text"), str) else _INVALID_MESSAGE
    if kind == "image_url":
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, dict) else url
        return _image_url_fault(url) if isinstance(url, str) else _INVALID_MESSAGE
    if kind == "input_audio":
        return _audio_fault(part.get("input_audio"))
    return _INVALID_MESSAGE


def _image_url_fault(url: str) -> str | None:
    if url.startswith(("http://", "https://")):
        return _NO_IMAGE_URLS
    prefix = next((begun for begun in _IMAGE_PREFIXES if url.startswith(begun)), None)
    if prefix is None or base64_fault(url[len(prefix) :]) is not None:
        return _INVALID_IMAGE
    return None


def _audio_fault(audio: Any) -> str | None:
    if not isinstance(audio, dict):
        return "invalid input_audio format"
    data = audio.get("data")
    if not isinstance(data, str):
        return "invalid input_audio format: missing data"
    if (wrong_at := base64_fault(data)) is not None:
        return f"invalid input_audio base64 data: {_corrupt(wrong_at)}"
    return None


def _corrupt(wrong_at: int) -> str:
    return f"illegal base64 data at input byte {wrong_at}"


def _calls_fault(message: Message) -> str | None:
    texts = [call.function.arguments for call in message.tool_calls or []]
    is_broken = any(_arguments_fault(text) is not None for text in texts)
    return "invalid tool call arguments" if is_broken else None


def _arguments_fault(text: str) -> str | None:
    """Return what Go says of a text that should be an object."""
    try:
        _OBJECT.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        try:
            unmarshal(read_whole(text), Arguments)
        except (GoSyntaxError, UnmarshalError) as error:
            return str(error)
    return None


def _effort_fault(effort: str) -> str | None:
    if effort in _EFFORTS:
        return None
    return f"invalid reasoning value: {go_quoted(effort)} (must be {_EFFORTS_SHOWN})"


def completion_fault(request: CompletionRequest) -> str | None:
    """Return what is wrong with the ``stop`` of a completion."""
    stops = request.stop if isinstance(request.stop, list) else []
    wrong = next((stop for stop in stops if not isinstance(stop, str)), "")
    if isinstance(wrong, str):
        return None
    return f"invalid type for 'stop' field: {go_type_of(wrong)}"


def responses_fault(request: ResponsesRequest) -> str | None:
    """Return what is wrong with the input, the effort or the tools of a response."""
    items = request.input if isinstance(request.input, list) else []
    return (
        _first(_item_fault(item) for item in items)
        or _effort_fault(request.reasoning.effort)
        or _first(_responses_tool_fault(tool) for tool in request.tools or [])
    )


def _item_fault(item: InputItem) -> str | None:
    match item.type or ("message" if item.role else ""):
        case "message":
            return _parts_fault(item.content)
        case "function_call_output":
            return _parts_fault(item.output)
        case "function_call":
            fault = _arguments_fault(item.arguments) if item.arguments else None
            said = f"failed to parse function call arguments: {fault}"
            return None if fault is None else said
        case "":
            return "input item missing required 'type' field"
        case _:
            return None


def _parts_fault(parts: str | list[ContentPart] | None) -> str | None:
    if not isinstance(parts, list):
        return None
    return _first(_part_fault(part) for part in parts)


def _part_fault(part: ContentPart) -> str | None:
    if part.type == "input_file":
        return "file inputs are not currently supported"
    is_image = part.type == "input_image" and part.image_url
    return _image_url_fault(part.image_url) if is_image else None


def _responses_tool_fault(tool: ResponsesTool) -> str | None:
    if tool.type == "web_search":
        return None
    return _declared_tool_fault(tool)


def _declared_tool_fault(tool: ResponsesTool) -> str | None:
    if tool.type == "namespace":
        return _first(_declared_tool_fault(member) for member in tool.tools or [])
    if tool.parameters is None:
        return None
    fault = _parameters_fault(tool.parameters, is_sorted=True)
    return None if fault is None else f"failed to unmarshal tool parameters: {fault}"


def _parameters_fault(schema: Any, *, is_sorted: bool) -> str | None:
    """Return what Go says of a schema; sorted is one that it has written anew."""
    try:
        msgspec.convert(schema, ToolFunctionParameters)
    except (msgspec.MsgspecError, RecursionError):
        try:
            unmarshal(tree_of(schema, is_sorted=is_sorted), ToolFunctionParameters)
        except UnmarshalError as error:
            return str(error)
    return None


def messages_fault(request: MessagesRequest) -> str | None:
    """Return what is wrong with the messages or the tools of Anthropic's kind."""
    blocks = (
        block
        for message in request.messages or []
        if isinstance(message.content, list)
        for block in message.content
    )
    return _first(_block_fault(block) for block in blocks) or _first(
        _anthropic_tool_fault(tool) for tool in _counted_tools(request.tools or [])
    )


def _block_fault(block: ContentBlock) -> str | None:
    match block.type:
        case "image" if block.source is None:
            return "invalid image source"
        case "image" if block.source is not None:
            return _source_fault(block.source)
        case "tool_use" if not block.id:
            return "tool_use block missing required 'id' field"
        case "tool_use" if not block.name:
            return "tool_use block missing required 'name' field"
        case "tool_result" if isinstance(block.content, list):
            return _first(_result_fault(part) for part in block.content)
        case _:
            return None


def _source_fault(source: ImageSource) -> str | None:
    if source.type != "base64":
        said = f"invalid image source type: {source.type}. "
        return f"{said}Only base64 images are supported."
    wrong_at = base64_fault(source.data)
    if wrong_at is None:
        return None
    return f"invalid base64 image data: {_corrupt(wrong_at)}"


def _result_fault(part: Any) -> str | None:
    if not isinstance(part, dict) or part.get("type") != "image":
        return None
    given = part.get("source")
    if not isinstance(given, dict):
        return "invalid tool_result image source"
    texts = {k: v for k in ("type", "data") if isinstance(v := given.get(k), str)}
    return _source_fault(ImageSource(**texts))


def _counted_tools(tools: list[AnthropicTool]) -> list[AnthropicTool]:
    """Leave out the built-in search, and other tools with its name."""
    searches = any(tool.type.startswith("web_search") for tool in tools)
    return [
        tool
        for tool in tools
        if not tool.type.startswith("web_search")
        and not (searches and tool.name == "web_search")
    ]


def _anthropic_tool_fault(tool: AnthropicTool) -> str | None:
    if tool.input_schema is None:
        return None
    fault = _parameters_fault(tool.input_schema, is_sorted=False)
    if fault is None:
        return None
    return f"invalid input_schema for tool {go_quoted(tool.name)}: {fault}"
