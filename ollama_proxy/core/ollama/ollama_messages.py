"""Declare messages, tools and other parts of requests, as Ollama's server does.

Names and types are those of ``api/types.go`` (v0.33), for `go_decode`.
"""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, field

from ollama_proxy.core.ollama.go_decode import (
    UnmarshalError,
    UnmarshalTypeError,
    plain,
    unmarshal,
)
from ollama_proxy.core.ollama.go_duration import parse_duration_ns
from ollama_proxy.core.ollama.go_json import Members, Number
from ollama_proxy.core.ollama.go_types import Custom, GoStruct
from ollama_proxy.core.ollama.go_words import go_quoted, go_type_of

Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_MALFORMED = "Value looks like object, but can't find closing '}' symbol"
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
