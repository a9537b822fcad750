"""Parse a duration as Go's ``time.ParseDuration`` does: ``"1h30m"``.

The error messages are Go's (``time/format.go`` of Go 1.26).
"""

import re

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
}
_NUMBER = re.compile(r"([0-9]*)(?:\.([0-9]*))?")
_UNIT = re.compile(r"[^.0-9]*")
_LIMIT_NS = 1 << 63
_DIGITS = 19
_LONGEST = 1024  # characters; Go has no limit, but people write less


def parse_duration_ns(text: str) -> int:
    """Return nanoseconds; raises `ValueError` with Go's words."""
    invalid = ValueError(f"time: invalid duration {_quoted(text)}")
    is_negative = text.startswith("-")
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return 0
    if not rest or len(text) > _LONGEST:
        raise invalid
    total = 0
    while rest:
        number = _NUMBER.match(rest)
        whole, fraction = number.groups() if number is not None else ("", None)
        if not whole and not fraction:
            raise invalid
        if len(whole.lstrip("0")) > _DIGITS or int(whole or "0") > _LIMIT_NS:
            raise invalid
        rest = rest[number.end() :] if number is not None else ""
        unit = _UNIT.match(rest)
        name = unit[0] if unit is not None else ""
        if not name:
            raise ValueError(f"time: missing unit in duration {_quoted(text)}")
        if name not in _UNITS_NS:
            message = f"time: unknown unit {_quoted(name)} in duration {_quoted(text)}"
            raise ValueError(message)
        rest = rest[len(name) :]
        total += _length_ns(whole, fraction, _UNITS_NS[name])
        if total > _LIMIT_NS:
            raise invalid
    if is_negative:
        return -total
    if total == _LIMIT_NS:
        raise invalid
    return total


def _length_ns(whole: str, fraction: str | None, unit_ns: int) -> int:
    """Return one part; Go reckons a fraction in floats, from digits that fit."""
    parts, scale = 0, 1.0
    for digit in fraction or "":
        longer = parts * 10 + int(digit)
        if longer > _LIMIT_NS:
            break
        parts, scale = longer, scale * 10
    return int(whole or "0") * unit_ns + int(float(parts) * (float(unit_ns) / scale))


def _quoted(text: str) -> str:
    """Return a text as Go's ``time`` quotes it: what is not ASCII byte by byte."""
    shown = []
    for character in text[:_LONGEST]:
        if " " <= character < "\x80":
            shown.append(f"\\{character}" if character in '"\\' else character)
        else:
            encoded = character.encode("utf-8", "surrogatepass")
            shown += [f"\\x{byte:02x}" for byte in encoded]
    return f'"{"".join(shown)}"'
