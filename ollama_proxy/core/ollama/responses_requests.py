"""Declare the body of ``POST /v1/responses``, as Ollama's server does.

Names and types are those of ``openai/responses.go`` (v0.33).
"""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Raw, UnsetType, field

from ollama_proxy.core.ollama.go_decode import UnmarshalError, unmarshal
from ollama_proxy.core.ollama.go_json import Number
from ollama_proxy.core.ollama.go_types import Custom, GoStruct
from ollama_proxy.core.ollama.go_words import go_quoted
from ollama_proxy.core.ollama.ollama_messages import Int


class ContentPart(GoStruct):
    """Holds a part of a message, or of what a function returned."""

    GO_TYPE: ClassVar = ""
    type: Literal["input_text", "input_image", "output_text", "input_file"]
    text: str = ""
    image_url: str = ""


class InputItem(GoStruct):
    """Holds an item of the input; which fields count depends on its type."""

    GO_TYPE: ClassVar = ""
    type: Literal[
        "",
        "message",
        "function_call",
        "function_call_output",
        "reasoning",
        "web_search_call",
    ] = ""
    role: str = ""
    content: str | list[ContentPart] | None = None
    arguments: str = ""
    output: str | list[ContentPart] | None = None


class _TypedPart(GoStruct):
    GO_TYPE: ClassVar = 'struct { Type string "json:\\"type\\"" }'
    type: str = ""


class _TextContent(GoStruct):
    GO_TYPE: ClassVar = "openai.ResponsesTextContent"
    type: str = ""
    text: str = ""


class _OutputTextContent(_TextContent):
    GO_TYPE: ClassVar = "openai.ResponsesOutputTextContent"


class _ImageContent(GoStruct):
    GO_TYPE: ClassVar = "openai.ResponsesImageContent"
    type: str = ""
    detail: str = ""
    file_id: str = ""
    image_url: str = ""


class _FileContent(GoStruct):
    GO_TYPE: ClassVar = "openai.ResponsesFileContent"
    type: str = ""
    file_data: str = ""
    file_id: str = ""
    file_url: str = ""
    filename: str = ""


class _TypedItem(GoStruct):
    GO_TYPE: ClassVar = (
        'struct { Type string "json:\\"type\\""; Role string "json:\\"role\\"" }'
    )
    type: str = ""
    role: str = ""


class _InputMessage(GoStruct):
    GO_TYPE: ClassVar = (
        'struct { Type string "json:\\"type\\""; Role string "json:\\"role\\""; '
        'Content json.RawMessage "json:\\"content\\"" }'
    )
    type: str = ""
    role: str = ""
    content: Raw | UnsetType = UNSET


class _FunctionCall(GoStruct):
    GO_TYPE: ClassVar = "openai.ResponsesFunctionCall"
    id: str = ""
    type: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class _FunctionCallOutput(GoStruct):
    GO_TYPE: ClassVar = (
        'struct { Type string "json:\\"type\\""; CallID string "json:\\"call_id\\""; '
        'Output json.RawMessage "json:\\"output\\"" }'
    )
    type: str = ""
    call_id: str = ""
    output: Raw | UnsetType = UNSET


class _Summary(GoStruct):
    GO_TYPE: ClassVar = "openai.ResponsesReasoningSummary"
    type: str = ""
    text: str = ""


class _ReasoningInput(GoStruct):
    GO_TYPE: ClassVar = "openai.ResponsesReasoningInput"
    id: str = ""
    type: str = ""
    summary: list[_Summary] | None = None
    encrypted_content: str = ""


class _SearchAction(GoStruct):
    GO_TYPE: ClassVar = "openai.ResponsesWebSearchAction"
    type: str = ""
    query: str = ""


class _WebSearchCall(GoStruct):
    GO_TYPE: ClassVar = "openai.ResponsesWebSearchCall"
    id: str = ""
    type: str = ""
    status: str = ""
    action: _SearchAction | None = None


_PARTS: dict[str, type[GoStruct]] = {
    "input_text": _TextContent,
    "input_image": _ImageContent,
    "output_text": _OutputTextContent,
    "input_file": _FileContent,
}


def _read_part(value: Any) -> ContentPart:
    kind = unmarshal(value, _TypedPart).type
    shape = _PARTS.get(kind)
    if shape is None:
        raise UnmarshalError(f"unknown content type: {kind}")
    read = unmarshal(value, shape)
    text, url = getattr(read, "text", ""), getattr(read, "image_url", "")
    return ContentPart(kind, text, url)


def _read_parts(value: Any, name: str) -> str | list[ContentPart] | None:
    """Read what may be a text or a list of parts."""
    if value is UNSET or value is None:
        return None
    if isinstance(value, str) and not isinstance(value, Number):
        return value
    try:
        raw = unmarshal(value, list[Raw] | None)
    except UnmarshalError as error:
        wrong = f"{name} must be a string or array: {error}"
        raise UnmarshalError(wrong) from error
    parts = []
    for at, part in enumerate(raw):
        try:
            parts.append(_read_part(part))
        except UnmarshalError as error:
            raise UnmarshalError(f"{name}[{at}]: {error}") from error
    return parts


def _read_item(value: Any) -> InputItem:
    typed = unmarshal(value, _TypedItem)
    match typed.type or ("message" if typed.role else ""):
        case "message":
            message = unmarshal(value, _InputMessage)
            parts = _read_parts(message.content, "content")
            return InputItem("message", message.role, parts)
        case "function_call":
            call = unmarshal(value, _FunctionCall)
            return InputItem("function_call", arguments=call.arguments)
        case "function_call_output":
            output = _read_parts(unmarshal(value, _FunctionCallOutput).output, "output")
            return InputItem("function_call_output", output=output)
        case "reasoning":
            unmarshal(value, _ReasoningInput)
            return InputItem("reasoning")
        case "web_search_call":
            unmarshal(value, _WebSearchCall)
            return InputItem("web_search_call")
        case "":
            raise UnmarshalError("input item missing required 'type' field")
        case unknown:
            raise UnmarshalError(f"unknown input item type: {go_quoted(unknown)}")


def _read_input(value: Any) -> str | list[InputItem]:
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Number):
        return value
    try:
        raw = unmarshal(value, list[Raw] | None)
    except UnmarshalError as error:
        wrong = f"input must be a string or array: {error}"
        raise UnmarshalError(wrong) from error
    items = []
    for at, item in enumerate(raw):
        try:
            items.append(_read_item(item))
        except UnmarshalError as error:
            raise UnmarshalError(f"input[{at}]: {error}") from error
    return items


class ResponsesReasoning(GoStruct):
    """Says how much the model should think."""

    GO_TYPE: ClassVar = "openai.ResponsesReasoning"
    effort: str = ""
    generate_summary: str = ""
    summary: str = ""


class ResponsesTextFormat(GoStruct):
    """Says which form the answer should have."""

    GO_TYPE: ClassVar = "openai.ResponsesTextFormat"
    type: str = ""
    name: str = ""
    schema: Raw = Raw()
    strict: bool | None = None


class ResponsesText(GoStruct):
    """Says which text the answer should be."""

    GO_TYPE: ClassVar = "openai.ResponsesText"
    format: ResponsesTextFormat | None = None


class ResponsesTool(GoStruct):
    """Describes a tool, or several under one name."""

    GO_TYPE: ClassVar = "openai.ResponsesTool"
    type: str = ""
    name: str = ""
    description: str | None = None
    strict: bool | None = None
    parameters: dict[str, Any] | None = None
    tools: "list[ResponsesTool] | None" = None


class ResponsesRequest(GoStruct):
    """Holds the body of ``POST /v1/responses``."""

    GO_TYPE: ClassVar = "openai.ResponsesRequest"
    model: str = ""
    background: bool = False
    conversation: Raw = Raw()
    include: list[str] | None = None
    input: Annotated[
        str | list[InputItem], Custom("openai.ResponsesInput", _read_input)
    ] = ""
    instructions: str = ""
    max_output_tokens: Int | None = None
    reasoning: ResponsesReasoning = field(default_factory=ResponsesReasoning)
    temperature: float | None = None
    text: ResponsesText | None = None
    top_p: float | None = None
    truncation: str | None = None
    tools: list[ResponsesTool] | None = None
    stream: bool | None = None
