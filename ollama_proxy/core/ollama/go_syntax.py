"""Say in Go's words what is wrong with a JSON text, and where.

Every error has the text that Go gives it (``encoding/json/scanner.go`` of Go 1.26).
"""

import re

# Before Python 3.11.5 a group with `*+` ends where its last alternative failed, so
# `\\u12` counted as complete (gh-106052). The last one, `(?!)`, fails at its start.
IN_STRING = rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|(?!))*+'
"""Matches the valid beginning of a string's content."""
_STRING_BEGUN = re.compile(rb'"%b' % IN_STRING)
_NUMBER_BEGUN = (
    (re.compile(rb"-"), "in numeric literal"),
    (
        re.compile(rb"-?(?:0|[1-9][0-9]*+)\."),
        "after decimal point in numeric literal",
    ),
    (
        re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?[eE][+-]?"),
        "in exponent of numeric literal",
    ),
)
_HEX = frozenset(b"0123456789abcdefABCDEF")
_NOT_PRINTED = frozenset({0x7F, 0xA0, 0xAD, *range(0x20), *range(0x80, 0xA0)})
_GO_ESCAPES = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r"}


class GoSyntaxError(ValueError):
    """Reports that the first value of a body is no JSON; the message is Go's."""


class EmptyBodyError(GoSyntaxError):
    """Reports a body without any value, which Go tells as ``EOF``."""


def string_fault(body: bytes, at: int) -> GoSyntaxError:
    """Return what is wrong with the string that begins there."""
    begun = _STRING_BEGUN.match(body, at)
    at = begun.end() if begun is not None else at + 1
    if body[at : at + 1] != b"\\":
        return _unexpected_at(body, at, "in string literal")
    if body[at + 1 : at + 2] != b"u":
        return _unexpected_at(body, at + 1, "in string escape code")
    at += 2
    while body[at : at + 1] and body[at] in _HEX:
        at += 1
    return _unexpected_at(body, at, "in \\u hexadecimal character escape")


def number_fault(body: bytes, at: int) -> GoSyntaxError:
    """Return what is wrong with the number that begins there."""
    for pattern, context in reversed(_NUMBER_BEGUN):
        if (begun := pattern.match(body, at)) is not None:
            return _unexpected_at(body, begun.end(), context)
    raise AssertionError(body[at : at + 20])


def literal_fault(body: bytes, at: int, literal: bytes) -> GoSyntaxError:
    """Return what is wrong with a ``literal`` that begins there."""
    right = 0
    while body[at + right : at + right + 1] == literal[right : right + 1]:
        right += 1
    expecting = f"(expecting '{chr(literal[right])}')"
    context = f"in literal {literal.decode()} {expecting}"
    return _unexpected_at(body, at + right, context)


def _unexpected_at(body: bytes, at: int, context: str) -> GoSyntaxError:
    return unexpected(body[at], context) if at < len(body) else ended()


def unexpected(byte: int, context: str) -> GoSyntaxError:
    """Return the error of a byte that can't come in this ``context``."""
    return GoSyntaxError(f"invalid character {_quoted(byte)} {context}")


def ended() -> GoSyntaxError:
    """Return the error of a text that ends within a value."""
    return GoSyntaxError("unexpected EOF")


def _quoted(byte: int) -> str:
    """Return a byte as Go's ``quoteChar`` shows it: taken for a rune of its own."""
    if byte in b"'\\":
        return f"'\\{chr(byte)}'"
    if byte in _GO_ESCAPES:
        return f"'\\{_GO_ESCAPES[byte]}'"
    if byte not in _NOT_PRINTED:
        return f"'{chr(byte)}'"
    return f"'\\x{byte:02x}'" if byte < 0x80 else f"'\\u{byte:04x}'"  # noqa: PLR2004 - the end of ASCII
