"""Declare the request bodies of OpenAI's API, as Ollama's server does.

Names and types are those of ``openai/openai.go`` (v0.33).
"""

from typing import Annotated, Any, ClassVar

from msgspec import Meta, Raw, field

from ollama_proxy.core.ollama.go_types import FLOAT32_MAX, GoStruct, GoType
from ollama_proxy.core.ollama.ollama_messages import Int, Tool

Float32 = Annotated[float, Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX), GoType("float32")]


class CalledFunction(GoStruct):
    """Describes the function of a `ToolCall`; the struct has no name in Go."""

    GO_TYPE: ClassVar = (
        'struct { Name string "json:\\"name\\""; '
        'Arguments string "json:\\"arguments\\"" }'
    )
    name: str = ""
    arguments: str = ""


class ToolCall(GoStruct):
    """Describes a call of a tool."""

    GO_TYPE: ClassVar = "openai.ToolCall"
    id: str = ""
    index: Int = 0
    type: str = ""
    function: CalledFunction = field(default_factory=CalledFunction)


class Message(GoStruct):
    """Holds a message of a chat."""

    GO_TYPE: ClassVar = "openai.Message"
    role: str = ""
    content: Any = None
    reasoning: str = ""
    tool_calls: list[ToolCall] | None = None
    name: str = ""
    tool_call_id: str = ""


class StreamOptions(GoStruct):
    """Says what a stream should hold."""

    GO_TYPE: ClassVar = "openai.StreamOptions"
    include_usage: bool = False


class JsonSchema(GoStruct):
    """Holds a schema that the answer should follow."""

    GO_TYPE: ClassVar = "openai.JsonSchema"
    schema: Raw = Raw()


class ResponseFormat(GoStruct):
    """Says which form the answer should have."""

    GO_TYPE: ClassVar = "openai.ResponseFormat"
    type: str = ""
    json_schema: JsonSchema | None = None


class Reasoning(GoStruct):
    """Says how much the model should think."""

    GO_TYPE: ClassVar = "openai.Reasoning"
    effort: str = ""


class ChatCompletionRequest(GoStruct):
    """Holds the body of ``POST /v1/chat/completions``."""

    GO_TYPE: ClassVar = "openai.ChatCompletionRequest"
    model: str = ""
    messages: list[Message] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Int | None = None
    seed: Int | None = None
    stop: Any = None
    temperature: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_p: float | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    reasoning: Reasoning | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: Int = 0
    debug_render_only: bool = field(name="_debug_render_only", default=False)


class CompletionRequest(GoStruct):
    """Holds the body of ``POST /v1/completions``."""

    GO_TYPE: ClassVar = "openai.CompletionRequest"
    model: str = ""
    prompt: str = ""
    frequency_penalty: Float32 = 0.0
    max_tokens: Int | None = None
    presence_penalty: Float32 = 0.0
    seed: Int | None = None
    stop: Any = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Float32 | None = None
    top_p: Float32 = 0.0
    suffix: str = ""
    logprobs: Int | None = None
    debug_render_only: bool = field(name="_debug_render_only", default=False)


class EmbedRequest(GoStruct):
    """Holds the body of ``POST /v1/embeddings``."""

    GO_TYPE: ClassVar = "openai.EmbedRequest"
    input: Any = None
    model: str = ""
    dimensions: Int = 0
    encoding_format: str = ""
