"""Decode a JSON value into a typed request as Go's ``encoding/json`` does.

The types are msgspec structs in Go's manner: `GoStruct` with the JSON names of the
fields. Keys match in any case, the last of several wins, ``null`` leaves a field
unchanged, and after everything is read the first value of a wrong type is reported with
Go's message (``encoding/json/decode.go`` of Go 1.26).
"""

import re
from functools import cache
from typing import Any

import msgspec

from ollama_proxy.core.ollama.go_base64 import base64_fault
from ollama_proxy.core.ollama.go_json import Members, Number, folded
from ollama_proxy.core.ollama.go_types import (
    BYTE,
    FLOAT32_MAX,
    GoStruct,
    Target,
    target_of,
)

_INT64 = range(-(2**63), 2**63)
_UINT8 = range(256)
_LONGEST_INT = 20
_WHOLE = re.compile(r"-?[0-9]+\Z")


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
            self.first = self.placed(error) if is_typed else error  # type: ignore[arg-type]  # checked above

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
            return bytes(self.put(element, BYTE, 0) for element in value)
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
                if whole in (_UINT8 if target is BYTE else _INT64):
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
