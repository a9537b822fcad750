"""Write values, times and the names of types as Go does."""

from datetime import UTC, datetime
from typing import Any

_LONGEST_SHOWN = 16 * 1024


def go_type_of(value: Any) -> str:
    """Return Go's name for the type of a plain value."""
    if value is None or isinstance(value, bool):
        return "<nil>" if value is None else "bool"
    names = {str: "string", int: "float64", float: "float64", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}")


def go_quoted(text: str) -> str:
    """Return the beginning of a text as Go's ``%q`` shows it."""
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


def rfc3339(moment: float) -> str:
    """Return epoch seconds as Go writes them: ``2026-11-21T09:46:57.475456Z``."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
