"""Declare the request body of Anthropic's API, as Ollama's server does.

Names and types are those of ``anthropic/anthropic.go`` (v0.33).
"""

from typing import Annotated, Any, ClassVar

from msgspec import UNSET, Raw, UnsetType, field

from ollama_proxy.core.ollama.go_decode import UnmarshalError, unmarshal
from ollama_proxy.core.ollama.go_json import Number
from ollama_proxy.core.ollama.go_types import Custom, GoStruct
from ollama_proxy.core.ollama.ollama_messages import Arguments, Int

AnyJson = Annotated[Any, Custom("json.RawMessage", lambda value: value)]


class ImageSource(GoStruct):
    """Says where an image comes from."""

    GO_TYPE: ClassVar = "anthropic.ImageSource"
    type: str = ""
    media_type: str = ""
    data: str = ""
    url: str = ""


class Citation(GoStruct):
    """Names a source of a text."""

    GO_TYPE: ClassVar = "anthropic.Citation"
    type: str = ""
    url: str = ""
    title: str = ""
    encrypted_index: str = ""
    cited_text: str = ""


class ContentBlock(GoStruct):
    """Holds a part of a message; which fields count depends on its type."""

    GO_TYPE: ClassVar = "anthropic.ContentBlock"
    type: str = ""
    text: str | None = None
    citations: list[Citation] | None = None
    source: ImageSource | None = None
    id: str = ""
    name: str = ""
    input: Arguments = field(default_factory=dict)
    tool_use_id: str = ""
    content: Any = None
    is_error: bool = False
    thinking: str | None = None
    signature: str = ""


class _RawMessage(GoStruct):
    GO_TYPE: ClassVar = (
        'struct { Role string "json:\\"role\\""; '
        'Content json.RawMessage "json:\\"content\\"" }'
    )
    role: str = ""
    content: Raw | UnsetType = UNSET


class MessageParamFields(GoStruct):
    """Holds a message: its text, or its blocks."""

    GO_TYPE: ClassVar = "anthropic.MessageParam"
    content: str | list[ContentBlock]
    role: str = ""


def _read_message(value: Any) -> MessageParamFields:
    raw = unmarshal(value, _RawMessage)
    content: Any = raw.content
    if content is UNSET:
        raise UnmarshalError("unexpected end of JSON input")
    is_text = isinstance(content, str) and not isinstance(content, Number)
    if not is_text and content is not None:
        content = unmarshal(content, list[ContentBlock] | None)
    return MessageParamFields(content or "", raw.role)


MessageParam = Annotated[
    MessageParamFields, Custom("anthropic.MessageParam", _read_message)
]


class Tool(GoStruct):
    """Describes a tool."""

    GO_TYPE: ClassVar = "anthropic.Tool"
    type: str = ""
    name: str = ""
    description: str = ""
    input_schema: AnyJson = None
    max_uses: Int = 0


class ToolChoice(GoStruct):
    """Says which tool the model should call."""

    GO_TYPE: ClassVar = "anthropic.ToolChoice"
    type: str = ""
    name: str = ""
    disable_parallel_tool_use: bool = False


class ThinkingConfig(GoStruct):
    """Says whether the model should think."""

    GO_TYPE: ClassVar = "anthropic.ThinkingConfig"
    type: str = ""
    budget_tokens: Int = 0


class Metadata(GoStruct):
    """Identifies the user of the request."""

    GO_TYPE: ClassVar = "anthropic.Metadata"
    user_id: str = ""


class OutputConfig(GoStruct):
    """Says how much effort the answer is worth."""

    GO_TYPE: ClassVar = "anthropic.OutputConfig"
    effort: str = ""


class MessagesRequest(GoStruct):
    """Holds the body of ``POST /v1/messages``."""

    GO_TYPE: ClassVar = "anthropic.MessagesRequest"
    model: str = ""
    max_tokens: Int = 0
    messages: list[MessageParam] | None = None
    system: Any = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int | None = None
    stop_sequences: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None
