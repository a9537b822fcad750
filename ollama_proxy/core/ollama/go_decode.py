"""Decode a JSON value into a typed request as Go's ``encoding/json`` does.

The types are msgspec structs in Go's manner: `GoStruct` with the JSON names of the
fields. Keys match in any case, the last of several wins, ``null`` leaves a field
unchanged, and after everything is read the first value of a wrong type is reported with
Go's message (``encoding/json/decode.go`` of Go 1.26).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

import msgspec

from ollama_proxy.core.ollama.go_json import Members, Number, folded

_INT64 = range(-(2**63), 2**63)
_UINT8 = range(256)
_LONGEST_INT = 20
_WHOLE = re.compile(r"-?[0-9]+\Z")
FLOAT32_MAX = 3.4028235677973366e38
_BASE64_BEGUN = re.compile(r"[A-Za-z0-9+/\r\n]*+")
_NEWLINES = re.compile(r"[\r\n]*+")
_QUANTUM = 4


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


class UnmarshalError(ValueError):
    """Reports a value of the wrong type; the message is Go's."""


class UnmarshalTypeError(UnmarshalError):
    """Reports Go's error of that name: ``value`` can't become a ``go_type``."""

    def __init__(
        self, value: str, go_type: str, struct: str = "", path: tuple[str, ...] = ()
    ) -> None:
        where = "Go value"
        if struct or path:
            where = f"Go struct field {struct}.{'.'.join(path)}"
        super().__init__(
            f"json: cannot unmarshal {value} into {where} of type {go_type}"
        )
        self.value = value
        self.go_type = go_type
        self.path = path


def unmarshal(value: Any, shape: Any) -> Any:
    """Return what `go_json.read_value` read as a value of ``shape``.

    Raises `UnmarshalError`, or `RecursionError` if the nesting exceeds Python's limit.
    """
    decoding = _Decoding()
    target = target_of(shape)
    try:
        made = decoding.put(value, target, target.zero())
    except UnmarshalTypeError as error:
        raise decoding.placed(error) from None
    if decoding.first is not None:
        raise decoding.first
    return made


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


_BYTE = Target("int", "uint8")
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
    assert plain is not None  # noqa: S101 - `_is_plain` said so
    named = next((note for note in notes if isinstance(note, GoType)), None)
    name = named.name if named is not None else plain.go_type
    return Target(plain.kind, name, plain.of, plain.is_nilable)


@cache
def _fields(struct: type[GoStruct]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a struct's fields by their exact and by their folded name."""
    exact = {f.encode_name: f for f in msgspec.structs.fields(struct)}
    by_folded: dict[str, Any] = {}
    for name, field in exact.items():
        by_folded.setdefault(folded(name), field)
    return exact, by_folded


class _Decoding:
    """Holds one call of Go's ``Unmarshal``: where it is, and the first fault it saw."""

    def __init__(self) -> None:
        self.first: UnmarshalError | None = None
        self._struct = ""
        self._path: tuple[str, ...] = ()

    def placed(self, error: UnmarshalTypeError) -> UnmarshalTypeError:
        """Return an error of a value inside, with the way to it."""
        if not self._struct and not self._path:
            return error
        path = (*self._path, *error.path)
        return UnmarshalTypeError(error.value, error.go_type, self._struct, path)

    def _note(self, error: UnmarshalError) -> None:
        if self.first is None:
            is_typed = isinstance(error, UnmarshalTypeError)
            self.first = self.placed(error) if is_typed else error  # type: ignore[arg-type]  # just told

    def put(self, value: Any, target: Target, old: Any) -> Any:  # noqa: PLR0911 - one line of a table each
        """Return the value after ``value`` was decoded into ``old``."""
        if target.kind == "custom":
            is_nil = value is None and target.is_nilable
            return None if is_nil else target.of(value)
        if target.kind == "raw":
            return value
        if value is None:
            return None if target.is_nilable else old
        if target.kind == "any":
            return self._any(value)
        if isinstance(value, Members):
            return self._object(value, target, old)
        if isinstance(value, list):
            return self._array(value, target, old)
        return self._scalar(value, target, old)

    def _any(self, value: Any) -> Any:
        try:
            return plain(value)
        except UnmarshalTypeError as error:
            self._note(error)
            return None

    def _object(self, value: Members, target: Target, old: Any) -> Any:
        if target.kind == "map":
            made = dict(old or {})
            for key, member in value:
                made[key] = self.put(member, target.of, target.of.zero())
            return made
        if target.kind != "struct":
            return self._mismatch("object", target, old)
        made = old if old is not None else target.of()
        exact, by_folded = _fields(target.of)
        before = self._struct, self._path
        for key, member in value:
            field = exact.get(key) or by_folded.get(folded(key))
            if field is None:
                continue
            self._struct = _name_of(target.go_type)
            self._path = (*before[1], field.encode_name)
            now = getattr(made, field.name)
            now = None if now is msgspec.UNSET else now
            setattr(made, field.name, self.put(member, target_of(field.type), now))
            self._struct, self._path = before
        return made

    def _array(self, value: list[Any], target: Target, old: Any) -> Any:
        if target.kind == "bytes":
            return bytes(self.put(element, _BYTE, 0) for element in value)
        if target.kind != "slice":
            return self._mismatch("array", target, old)
        before = old or []
        return [
            self.put(
                element,
                target.of,
                before[at] if at < len(before) else target.of.zero(),
            )
            for at, element in enumerate(value)
        ]

    def _scalar(self, value: Any, target: Target, old: Any) -> Any:
        if isinstance(value, Number):
            return self._number(value, target, old)
        if isinstance(value, bool):
            fits = target.kind == "bool"
            return value if fits else self._mismatch("bool", target, old)
        if target.kind == "bytes":
            return self._bytes(value, old)
        return (
            value if target.kind == "string" else self._mismatch("string", target, old)
        )

    def _number(self, value: Number, target: Target, old: Any) -> Any:
        if target.kind == "int":
            if _WHOLE.match(value) and len(value) <= _LONGEST_INT:
                whole = int(value)
                if whole in (_UINT8 if target is _BYTE else _INT64):
                    return whole
            return self._mismatch(f"number {value}", target, old)
        if target.kind != "float":
            return self._mismatch("number", target, old)
        most = FLOAT32_MAX if target.go_type == "float32" else float("inf")
        if abs(number := float(value)) < most:
            return number
        return self._mismatch(f"number {value}", target, old)

    def _bytes(self, text: str, old: Any) -> Any:
        wrong_at = base64_fault(text)
        if wrong_at is None:
            return text.encode("ascii")
        self._note(UnmarshalError(f"illegal base64 data at input byte {wrong_at}"))
        return old

    def _mismatch(self, value: str, target: Target, old: Any) -> Any:
        self._note(UnmarshalTypeError(value, target.go_type))
        return old


def _name_of(go_type: str) -> str:
    """Return a struct's name without its package; one without a name has none."""
    return "" if go_type.startswith("struct {") else go_type.rpartition(".")[2]


def plain(value: Any) -> Any:
    """Return a value as Go decodes it into ``any``: numbers are floats.

    Raises `UnmarshalTypeError` for a number that is too large.
    """
    if isinstance(value, Members):
        return {key: plain(member) for key, member in value}
    if isinstance(value, list):
        return [plain(element) for element in value]
    if isinstance(value, Number):
        if abs(number := float(value)) < float("inf"):
            return number
        raise UnmarshalTypeError(f"number {value}", "float64")
    return value


def tree_of(value: Any, *, is_sorted: bool) -> Any:
    """Return a plain value as `go_json.read_value` would have read it."""
    if isinstance(value, Members | Number):
        return value
    if isinstance(value, dict):
        pairs = sorted(value.items()) if is_sorted else value.items()
        return Members((k, tree_of(v, is_sorted=is_sorted)) for k, v in pairs)
    if isinstance(value, list):
        return [tree_of(element, is_sorted=is_sorted) for element in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Number(repr(value)) if is_number else value


def base64_fault(text: str) -> int | None:
    """Return where a text stops being base64 as Go takes it; None if it does not."""
    begun = _BASE64_BEGUN.match(text)
    at = begun.end() if begun is not None else 0
    digits = at - text.count("\r", 0, at) - text.count("\n", 0, at)
    over = digits % _QUANTUM
    if at == len(text):
        return at - over if over else None
    if text[at] != "=" or over in {0, 1}:
        return _byte_at(text, at)
    after = _skip_newlines(text, at + 1)
    if over == 2:  # noqa: PLR2004 - two digits want two signs
        if after == len(text):
            return _byte_at(text, after)
        if text[after] != "=":
            return _byte_at(text, after - 1)
        after = _skip_newlines(text, after + 1)
    return _byte_at(text, after) if after < len(text) else None


def _skip_newlines(text: str, at: int) -> int:
    skipped = _NEWLINES.match(text, at)
    return skipped.end() if skipped is not None else at


def _byte_at(text: str, at: int) -> int:
    """Return a place in a text, counted in bytes of UTF-8: Go counts so."""
    return len(text[:at].encode("utf-8", "surrogatepass"))
