"""Escape foreign text for a terminal, so that no control sequence takes effect.

A model's name, an error of an instance or a path may contain an escape sequence, which
moves the cursor, writes to the clipboard or forges a line.
"""

import re

_OBEYED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters of both sets, line breaks, bidirectional controls, and lone
surrogates, which can't be encoded."""


def shown(text: str) -> str:
    r"""Return a text on one line, with what a terminal obeys written as ``\x1b``."""
    if text.isprintable():
        return text
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def shown_json(text: str) -> str:
    """Return equivalent JSON without control characters for a terminal."""
    if text.isprintable():
        return text
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shown_lines(text: str) -> str:
    """Return a text of several lines, with all but their ends shown."""
    return "\n".join(map(shown, text.split("\n")))


def shown_values(value: object) -> object:
    """Return a dict or list with every text in it escaped."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict):
        return {key: shown_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [shown_values(one) for one in value]
    return value
