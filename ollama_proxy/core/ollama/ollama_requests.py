"""Declare the request bodies of Ollama's own routes, as its server does.

Names and types are those of ``api/types.go`` (v0.33), for `go_decode`.
"""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Raw, field

from ollama_proxy.core.ollama.go_decode import (
    Custom,
    GoStruct,
    GoType,
    UnmarshalError,
    UnmarshalTypeError,
    plain,
    unmarshal,
)
from ollama_proxy.core.ollama.go_duration import parse_duration_ns
from ollama_proxy.core.ollama.go_json import Members, Number

Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_MALFORMED = "Value looks like object, but can't find closing '}' symbol"
_LONGEST_SHOWN = 16 * 1024
_THOUGHTS = ("high", "medium", "low", "max")
_THINK = '"high", "medium", "low", "max", true, or false'


def _read_duration(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, str):
        try:
            parse_duration_ns(value)
        except ValueError as error:
            raise UnmarshalError(str(error)) from error
    elif isinstance(value, bool) or not isinstance(value, float):
        raise UnmarshalError(f"Unsupported type: '{go_type_of(value)}'")
    return value


def _read_think(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or isinstance(value, Number):
        raise UnmarshalError(f"think must be a boolean or string ({_THINK})")
    if value not in _THOUGHTS:
        shown = go_quoted(value)
        raise UnmarshalError(f"invalid think value: {shown} (must be {_THINK})")
    return value


def _read_ordered(value: Any, element: Any) -> Any:
    """Read an object as ``wk8/go-ordered-map`` does."""
    if value is None:
        return {}
    if not isinstance(value, Members):
        raise UnmarshalError(_MALFORMED)
    return {key: unmarshal(member, element) for key, member in value}


def _read_property_type(value: Any) -> Any:
    try:
        return unmarshal(value, str)
    except UnmarshalTypeError:
        return unmarshal(value, list[str] | None)


def go_type_of(value: Any) -> str:
    """Return Go's name for the type of a plain value."""
    if value is None or isinstance(value, bool):
        return "<nil>" if value is None else "bool"
    names = {str: "string", int: "float64", float: "float64", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}")


def go_quoted(text: str) -> str:
    """Return a text as Go's ``%q`` shows it, up to where anybody would read it."""
    return f'"{"".join(_shown(character) for character in text[:_LONGEST_SHOWN])}"'


def _shown(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    if code in range(7, 14):
        return f"\\{'abtnvfr'[code - 7]}"
    if code < 0x20 or code == 0x7F:  # noqa: PLR2004 - the control characters of ASCII
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 - what needs eight digits


Duration = Annotated[
    Annotated[str, Meta(pattern=r"^-?[0-9]{1,5}(ms|s|m|h)$")] | int | float,
    Custom("api.Duration", _read_duration),
]
Think = Annotated[
    bool | Literal["high", "medium", "low", "max"],
    Custom("api.ThinkValue", _read_think),
]
Arguments = Annotated[
    dict[str, Any],
    Custom("api.ToolCallFunctionArguments", lambda value: _read_ordered(value, Any)),
]
PropertyType = Annotated[
    str | list[str], Custom("api.PropertyType", _read_property_type)
]


class ToolCallFunction(GoStruct):
    """Describes a call of a tool."""

    GO_TYPE: ClassVar = "api.ToolCallFunction"
    index: Int = 0
    name: str = ""
    arguments: Arguments = field(default_factory=dict)


class ToolCall(GoStruct):
    """Describes a call of a tool, with its id."""

    GO_TYPE: ClassVar = "api.ToolCall"
    id: str = ""
    function: ToolCallFunction = field(default_factory=ToolCallFunction)


class MessageFields(GoStruct):
    """Holds a message; Go reads it by way of a type called ``Alias``."""

    GO_TYPE: ClassVar = "api.Alias"
    role: str = ""
    content: str = ""
    thinking: str = ""
    images: list[bytes] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str = ""
    tool_call_id: str = ""


Message = Annotated[
    MessageFields,
    Custom("api.Message", lambda value: unmarshal(value, MessageFields)),
]


class ToolProperty(GoStruct):
    """Describes one argument of a tool."""

    GO_TYPE: ClassVar = "api.ToolProperty"
    any_of: list["ToolProperty"] | None = field(name="anyOf", default=None)
    type: PropertyType | None = None
    items: Any = None
    description: str = ""
    enum: list[Any] | None = None
    properties: "ToolProperties | None" = None
    required: list[str] | None = None


ToolProperties = Annotated[
    dict[str, ToolProperty],
    Custom("api.ToolPropertiesMap", lambda value: _read_ordered(value, ToolProperty)),
]


class ToolFunctionParameters(GoStruct):
    """Describes what a tool takes."""

    GO_TYPE: ClassVar = "api.ToolFunctionParameters"
    type: str = ""
    defs: Any = field(name="$defs", default=None)
    items: Any = None
    required: list[str] | None = None
    properties: ToolProperties | None = None


class ToolFunction(GoStruct):
    """Describes a tool, by name."""

    GO_TYPE: ClassVar = "api.ToolFunction"
    name: str = ""
    description: str = ""
    parameters: ToolFunctionParameters = field(default_factory=ToolFunctionParameters)


class Tool(GoStruct):
    """Describes a tool."""

    GO_TYPE: ClassVar = "api.Tool"
    type: str = ""
    items: Any = None
    function: ToolFunction = field(default_factory=ToolFunction)


class GenerateRequest(GoStruct):
    """Holds the body of ``POST /api/generate``."""

    GO_TYPE: ClassVar = "api.GenerateRequest"
    model: str = ""
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[Int] | None = None
    stream: bool | None = None
    raw: bool = False
    format: Raw = Raw()
    keep_alive: Duration | None = None
    images: list[bytes] | None = None
    options: dict[str, Any] | None = None
    think: Think | None = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool = field(name="_debug_render_only", default=False)
    logprobs: bool = False
    top_logprobs: Int = 0


class ChatRequest(GoStruct):
    """Holds the body of ``POST /api/chat``."""

    GO_TYPE: ClassVar = "api.ChatRequest"
    model: str = ""
    messages: list[Message] | None = None
    stream: bool | None = None
    format: Raw = Raw()
    keep_alive: Duration | None = None
    tools: Annotated[list[Tool] | None, GoType("api.Tools")] = None
    options: dict[str, Any] | None = None
    think: Think | None = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool = field(name="_debug_render_only", default=False)
    logprobs: bool = False
    top_logprobs: Int = 0


class EmbedRequest(GoStruct):
    """Holds the body of ``POST /api/embed``."""

    GO_TYPE: ClassVar = "api.EmbedRequest"
    model: str = ""
    input: Any = None
    keep_alive: Duration | None = None
    truncate: bool | None = None
    dimensions: Int = 0
    options: dict[str, Any] | None = None


class EmbeddingRequest(GoStruct):
    """Holds the body of ``POST /api/embeddings``."""

    GO_TYPE: ClassVar = "api.EmbeddingRequest"
    model: str = ""
    prompt: str = ""
    keep_alive: Duration | None = None
    options: dict[str, Any] | None = None


class PullRequest(GoStruct):
    """Holds the body of ``POST /api/pull``."""

    GO_TYPE: ClassVar = "api.PullRequest"
    model: str = ""
    insecure: bool = False
    username: str = ""
    password: str = ""
    stream: bool | None = None
    name: str = ""


class PushRequest(PullRequest):
    """Holds the body of ``POST /api/push``."""

    GO_TYPE: ClassVar = "api.PushRequest"


class DeleteRequest(GoStruct):
    """Holds the body of ``DELETE /api/delete``."""

    GO_TYPE: ClassVar = "api.DeleteRequest"
    model: str = ""
    name: str = ""


class CopyRequest(GoStruct):
    """Holds the body of ``POST /api/copy``."""

    GO_TYPE: ClassVar = "api.CopyRequest"
    source: str = ""
    destination: str = ""


class ShowRequest(GoStruct):
    """Holds the body of ``POST /api/show``."""

    GO_TYPE: ClassVar = "api.ShowRequest"
    model: str = ""
    system: str = ""
    template: str = ""
    verbose: bool = False
    options: dict[str, Any] | None = None
    name: str = ""


class CreateRequest(GoStruct):
    """Holds the body of ``POST /api/create``."""

    GO_TYPE: ClassVar = "api.CreateRequest"
    model: str = ""
    stream: bool | None = None
    quantize: str = ""
    draft_quantize: str = ""
    from_: str = field(name="from", default="")
    remote_host: str = ""
    files: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str = ""
    license: Any = None
    system: str = ""
    parameters: dict[str, Any] | None = None
    messages: list[Message] | None = None
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: dict[str, Any] | None = None
    name: str = ""
    quantization: str = ""
