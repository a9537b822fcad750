"""Describe Go's types by the hints of a struct's fields.

A `GoStruct` is written like a struct of Go's, with the JSON names of its fields.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

import msgspec

FLOAT32_MAX = 3.4028235677973366e38


class GoStruct(msgspec.Struct):
    """Decodes as a struct of Go's: msgspec reads most values, `unmarshal` all."""

    GO_TYPE: ClassVar[str]


@dataclass(frozen=True, slots=True)
class GoType:
    """Holds the name that Go gives a type, for its errors."""

    name: str


@dataclass(frozen=True, slots=True)
class Custom:
    """Reads its own values; raises `UnmarshalError` for one that it does not take."""

    go_type: str
    read: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Target:
    """Describes a type of Go's. ``of`` is its element, struct or own way of reading."""

    kind: str
    go_type: str
    of: Any = None
    is_nilable: bool = False

    def zero(self) -> Any:
        """Return Go's zero value."""
        if self.is_nilable:
            return None
        if self.kind == "struct":
            return self.of()
        return {"string": "", "bool": False, "int": 0, "float": 0.0}.get(self.kind)


BYTE = Target("int", "uint8")
_SCALARS = {
    str: Target("string", "string"),
    bool: Target("bool", "bool"),
    int: Target("int", "int"),
    float: Target("float", "float64"),
    bytes: Target("bytes", "api.ImageData", is_nilable=True),
    Any: Target("any", "interface {}", is_nilable=True),
    msgspec.Raw: Target("raw", "json.RawMessage"),
}


@cache
def target_of(hint: Any) -> Target:
    """Return the type of Go's that a hint stands for."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(target_of(args[0]) if _is_plain(args) else None, args[1:])
    if origin in {Union, UnionType}:
        inner = target_of(next(arg for arg in args if arg is not NoneType))
        return Target(inner.kind, inner.go_type, inner.of, is_nilable=True)
    if origin is list:
        element = target_of(args[0])
        return Target("slice", f"[]{element.go_type}", element, is_nilable=True)
    if origin is dict:
        element = target_of(args[1])
        name = f"map[string]{element.go_type}"
        return Target("map", name, element, is_nilable=True)
    if isinstance(hint, type) and issubclass(hint, GoStruct):
        return Target("struct", hint.GO_TYPE, hint)
    return _SCALARS[hint]


def _is_plain(args: tuple[Any, ...]) -> bool:
    return not any(isinstance(arg, Custom) for arg in args)


def _annotated(plain: Target | None, notes: tuple[Any, ...]) -> Target:
    custom = next((note for note in notes if isinstance(note, Custom)), None)
    if custom is not None:
        return Target("custom", custom.go_type, custom.read)
    assert plain is not None  # noqa: S101 - by `_is_plain`
    named = next((note for note in notes if isinstance(note, GoType)), None)
    name = named.name if named is not None else plain.go_type
    return Target(plain.kind, name, plain.of, plain.is_nilable)
