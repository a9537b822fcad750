"""The Machines API's own description, condensed: routes, and strict shapes.

Anything outside of the description is refused, although the real API may drop it.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.openapi import Judge

SPEC: dict[str, Any] = json.loads(Path(__file__).with_name("api.json").read_text())
faults = Judge(SPEC["schemas"]).faults
"""Return what is wrong with a body: its shape, and every unknown key."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the description."""

    name: str
    request: dict[str, Any] | None
    response: dict[str, Any] | None
    status: int
    query: frozenset[str]


def _pattern(path: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in re.split(r"\{\w+\}", path)]
    return re.compile("([^/]+)".join(parts) + r"\Z")


_ROUTES = [
    (
        one["method"],
        _pattern(one["path"]),
        Operation(
            one["name"],
            one["request"],
            one["response"],
            one["status"],
            frozenset(one["query"]),
        ),
    )
    for one in SPEC["operations"]
]


def find(method: str, path: str) -> tuple[Operation, list[str]] | None:
    """Return the operation of a request, and the names in its path."""
    for verb, pattern, operation in _ROUTES:
        if verb == method and (match := pattern.match(path)):
            return operation, list(match.groups())
    return None
