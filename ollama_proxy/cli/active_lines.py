"""Put the requests in progress into words: the answer to what keeps it awake."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

MOST: Final = 10
"""How many are shown; ``status --json`` has more."""


def active_lines(active: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each of the oldest requests, and one for how many more are."""
    for one in active[:MOST]:
        yield _line(one)
    if (more := len(active) - MOST) > 0:
        yield f"and {more} more"


def _line(one: Mapping[str, Any]) -> str:
    """Return a request as `203.0.113.7 (laptop): /api/chat llama3.2, relaying …`."""
    key = f" ({one['key']})" if one["key"] else ""
    what = " ".join(text for text in (one["route"], one["model"]) if text)
    agent = f", {one['agent']}" if one["agent"] else ""
    return (
        f"{one['client'] or 'unknown'}{key}: {what},"
        f" {one['state']} for {one['since_s']:.0f} s{agent}"
    )
