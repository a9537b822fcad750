"""Read how long a client wants a model to be kept."""

import msgspec

from ollama_proxy.core.ollama.go_duration import parse_duration_ns
from ollama_proxy.core.ollama.loose_json import UNREADABLE

_LONGEST_S = 1e10
_SHORTEST_S = 1e-9  # Go counts whole nanoseconds, so less is zero
_NS_PER_S = 1e9


def go_duration_s(raw: bytes) -> float | None:  # noqa: PLR0911
    """Return a raw ``keep_alive`` in seconds: a number, or Go's ``"1h30m"``.

    None if it is absent, null or invalid.
    """
    try:
        value = msgspec.json.decode(raw) if raw else None
    except UNREADABLE:
        return None
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        if 0 < value < _SHORTEST_S:
            return 0.0
        return float(value) if abs(value) < _LONGEST_S else _LONGEST_S
    if not isinstance(value, str):
        return None
    try:
        return parse_duration_ns(value) / _NS_PER_S
    except ValueError:
        return None
