r"""Parse a JSON value as Go's ``encoding/json`` does.

Go's ``Decoder`` reads the first value of a body and ignores the rest. It replaces
invalid UTF-8 and lone surrogates inside strings by U+FFFD. Every error has Go's message
(``encoding/json/scanner.go`` of Go 1.26).
"""

import json
import re
from collections.abc import Container, Iterable
from typing import Any

import msgspec

from ollama_proxy.core.ollama.go_syntax import (
    IN_STRING,
    EmptyBodyError,
    GoSyntaxError,
    ended,
    literal_fault,
    number_fault,
    string_fault,
    unexpected,
)

MOST_BYTES = 1024 * 1024
"""Bytes up to which a body is read."""

MOST_TOKENS = 50_000
"""Tokens up to which a body is read: 25 ms of processor time, and 4 MB."""

_DEEPEST = 10_000
_EXACT_BYTES = 64 * 1024  # longer: no name, so how many U+FFFD is no matter
_SPACE = rb"[ \t\r\n]*+"
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++|(?!\.))(?:[eE][+-]?[0-9]++|(?![eE]))"
_TOKEN = re.compile(
    rb'%b(?:([{}\[\],:])|"(%b)"|(%b)|(true|false|null))' % (_SPACE, IN_STRING, _NUMBER)
)
_PUNCTUATION, _STRING, _NUMERAL, _LITERAL = 1, 2, 3, 4
_SKIPPED = re.compile(_SPACE)
_LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
_VALUES = {b"true": True, b"false": False, b"null": None}
_FOLDS = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZſ\u212a", "abcdefghijklmnopqrstuvwxyzsk"
)
_SURROGATE = re.compile("[\ud800-\udfff]")

# What the scanner expects, in Go's words for an invalid byte there. Two end with a
# space: Go's message is the same, but a closing bracket is valid as well.
_AT_VALUE = "looking for beginning of value"
_AT_VALUE_OR_END = "looking for beginning of value "
_AT_KEY = "looking for beginning of object key string"
_AT_KEY_OR_END = "looking for beginning of object key string "
_AT_COLON = "after object key"
_AT_NEXT_MEMBER = "after object key:value pair"
_AT_NEXT_ELEMENT = "after array element"


class UnreadBodyError(Exception):
    """Reports a body that is longer, or nested deeper, than is looked at here."""


class Number(str):
    """Keeps a number as it is written: Go reads it once it knows the type."""

    __slots__ = ()


class Members(list[tuple[str, Any]]):
    """Holds an object: its members in order, equal keys included."""

    __slots__ = ()


def read_value(body: bytes) -> Any:
    """Return the first value of a body.

    An object is `Members`, a number is `Number`, the rest is as in Python's ``json``.
    Raises `GoSyntaxError`, or `UnreadBodyError` if the body is too large.
    """
    return _Reader(body).read()


def read_members(
    body: bytes, wanted: Container[str] | None = None
) -> dict[str, msgspec.Raw]:
    """Return the members of an object as JSON, by `folded` name: all, or some.

    As Go fills a struct: the last of equal names wins, and ``null`` counts as absent.
    Raises `GoSyntaxError` if the value is no object, or `UnreadBodyError`.
    """
    value = read_value(body)
    if value is None:
        return {}
    if not isinstance(value, Members):
        raise GoSyntaxError("the request body is no JSON object")
    try:
        return {
            folded(key): msgspec.Raw(msgspec.json.encode(_encodable(member)))
            for key, member in value
            if member is not None and (wanted is None or folded(key) in wanted)
        }
    except RecursionError as error:
        raise UnreadBodyError from error


def folded(name: str) -> str:
    """Return a name in lower case, with the two other letters that Go folds."""
    return name.lower() if name.isascii() else name.translate(_FOLDS)


def are_folded(names: Iterable[str]) -> bool:
    """Tell whether names are in lower case, so that Go takes them as they are."""
    joined = "".join(names)
    return joined.isascii() and joined == joined.lower()


def _encodable(value: Any) -> Any:
    if isinstance(value, Members):
        return {key: _encodable(member) for key, member in value}
    if isinstance(value, list):
        return [_encodable(element) for element in value]
    return msgspec.Raw(value.encode()) if isinstance(value, Number) else value


def read_whole(text: str) -> Any:
    """Return the one value of a text, as Go's ``Unmarshal`` does: nothing may follow.

    Raises as `read_value` does; a truncated value has another message.
    """
    body = text.encode("utf-8", "replace")
    reader = _Reader(body)
    try:
        value = reader.read()
    except GoSyntaxError as error:
        if str(error) in {"EOF", "unexpected EOF"}:
            raise GoSyntaxError("unexpected end of JSON input") from None
        raise
    rest = body[reader.at :].lstrip(b" \t\r\n")
    if rest:
        raise unexpected(rest[0], "after top-level value")
    return value


class _Reader:
    """Reads one value with a stack of its own, so that depth costs no recursion."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.at = 0
        self._open: list[tuple[list[Any], str]] = []
        self._key = ""

    def read(self) -> Any:
        if len(self._body) > MOST_BYTES:
            raise UnreadBodyError
        state = _AT_VALUE
        for _ in range(MOST_TOKENS):
            token = _TOKEN.match(self._body, self.at)
            if token is None:
                raise self._fault(state)
            kind = token.lastindex
            if kind == _PUNCTUATION:
                state = self._punctuation(token[_PUNCTUATION], state)
            elif kind == _STRING and state in (_AT_KEY, _AT_KEY_OR_END):
                self._key, state = _unquoted(token[_STRING]), _AT_COLON
            elif state in (_AT_VALUE, _AT_VALUE_OR_END):
                state = self._add(_scalar(token))
            else:
                raise self._fault(state)
            self.at = token.end()
            if not state:
                return self._value
        raise UnreadBodyError

    def _punctuation(self, mark: bytes, state: str) -> str:
        """Return what the scanner is in front of after a mark; "" at the end."""
        takes_value = state in (_AT_VALUE, _AT_VALUE_OR_END)
        if mark == b"{" and takes_value:
            return self._begin(Members(), _AT_KEY_OR_END)
        if mark == b"[" and takes_value:
            return self._begin([], _AT_VALUE_OR_END)
        if mark == b":" and state == _AT_COLON:
            return _AT_VALUE
        if mark == b"," and state == _AT_NEXT_MEMBER:
            return _AT_KEY
        if mark == b"," and state == _AT_NEXT_ELEMENT:
            return _AT_VALUE
        ends_object = state in (_AT_NEXT_MEMBER, _AT_KEY_OR_END)
        ends_array = state in (_AT_NEXT_ELEMENT, _AT_VALUE_OR_END)
        if (mark == b"}" and ends_object) or (mark == b"]" and ends_array):
            ended, self._key = self._open.pop()
            return self._add(ended)
        raise self._fault(state)

    def _begin(self, container: list[Any], state: str) -> str:
        if len(self._open) == _DEEPEST:
            at = _SKIPPED.match(self._body, self.at)
            raise unexpected(self._body[at.end() if at else 0], "exceeded max depth")
        self._open.append((container, self._key))
        return state

    def _add(self, value: Any) -> str:
        """Add a whole value to its container; return the state that follows."""
        if not self._open:
            self._value = value
            return ""
        container = self._open[-1][0]
        if isinstance(container, Members):
            container.append((self._key, value))
            return _AT_NEXT_MEMBER
        container.append(value)
        return _AT_NEXT_ELEMENT

    def _fault(self, state: str) -> GoSyntaxError:
        """Return what is wrong with the token that should begin here."""
        skipped = _SKIPPED.match(self._body, self.at)
        at = skipped.end() if skipped is not None else self.at
        begun = self._body[at : at + 1]
        if not begun:
            return ended() if self.at or at < 0 else EmptyBodyError("EOF")
        takes_value = state in (_AT_VALUE, _AT_VALUE_OR_END)
        if begun == b'"' and (takes_value or state in (_AT_KEY, _AT_KEY_OR_END)):
            return string_fault(self._body, at)
        if takes_value and begun in b"-0123456789":
            return number_fault(self._body, at)
        if takes_value and begun in _LITERALS:
            return literal_fault(self._body, at, _LITERALS[begun])
        return unexpected(begun[0], state.strip())


def _scalar(token: re.Match[bytes]) -> Any:
    match token.lastindex:
        case 2:
            return _unquoted(token[_STRING])
        case 3:
            return Number(token[_NUMERAL].decode())
        case _:
            return _VALUES[token[_LITERAL]]


def _unquoted(inner: bytes) -> str:
    """Return the text of a string; what is no Unicode becomes U+FFFD, byte by byte."""
    by_byte = "surrogateescape" if len(inner) <= _EXACT_BYTES else "replace"
    text = inner.decode("utf-8", by_byte)
    if "\\" in text:
        text = json.loads(f'"{text}"')
    if text.isascii():
        return text
    return _SURROGATE.sub("\ufffd", text)
