"""Exoscale's own description of its API, from the SDK: routes, and strict shapes.

Anything outside of the description is refused, although the real API silently drops
some unknown fields: so a typing error shows at once.
"""

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from tests.fakes.openapi import Judge

SPEC: dict[str, Any] = json.loads((files("exoscale") / "openapi.json").read_text())
faults = Judge(SPEC["components"]["schemas"]).faults
"""Return what is wrong with a body: its shape, and every unknown key."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the description."""

    name: str
    request: dict[str, Any] | None
    response: dict[str, Any]
    query: frozenset[str]


def _pattern(path: str) -> re.Pattern[str]:
    """Return what matches a path; an id holds no slash, and no action's colon."""
    parts = [re.escape(part) for part in re.split(r"\{[\w-]+\}", path)]
    return re.compile("([^/:]+)".join(parts) + r"\Z")


def _routes() -> list[tuple[str, re.Pattern[str], Operation]]:
    routes = []
    for path in sorted(SPEC["paths"], key=lambda p: p.count("{")):  # literals first
        for method, told in SPEC["paths"][path].items():
            content = told["responses"].get("200", {}).get("content", {})
            body = told.get("requestBody", {}).get("content", {})
            operation = Operation(
                name=told["operationId"],
                request=body.get("application/json", {}).get("schema"),
                response=content.get("application/json", {}).get("schema", {}),
                query=frozenset(
                    one["name"]
                    for one in told.get("parameters", [])
                    if one["in"] == "query"
                ),
            )
            routes.append((method.upper(), _pattern(path), operation))
    return routes


_ROUTES = _routes()


def find(method: str, path: str) -> tuple[Operation, list[str]] | None:
    """Return the operation of a request, and the ids in its path."""
    for verb, pattern, operation in _ROUTES:
        if verb == method and (match := pattern.match(path)):
            return operation, list(match.groups())
    return None
