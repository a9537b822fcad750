"""Find where a text stops being base64, as Go's ``encoding/base64`` takes it."""

import re

_BASE64_BEGUN = re.compile(r"[A-Za-z0-9+/\r\n]*+")
_NEWLINES = re.compile(r"[\r\n]*+")
_QUANTUM = 4


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
