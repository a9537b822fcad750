"""The Machines API's own description, condensed: routes, and strict shapes.

Anything outside of the description is refused, although the real API may drop it.
"""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS30Validator

SPEC: dict[str, Any] = json.loads(Path(__file__).with_name("api.json").read_text())
_COMPONENTS = {"components": {"schemas": SPEC["schemas"]}}


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


def faults(schema: dict[str, Any], value: object) -> list[str]:
    """Return what is wrong with a body: its shape, and every unknown key."""
    return list(_faults(json.dumps(schema, sort_keys=True), json.dumps(value)))


@functools.lru_cache(maxsize=10_000)
def _faults(schema_text: str, text: str) -> tuple[str, ...]:
    """Judge a body once: most answers are those of the poll before."""
    schema, value = json.loads(schema_text), json.loads(text)
    wrong = [error.message for error in _validator(schema_text).iter_errors(value)]
    return (*wrong, *_unknown(schema, value, ""))


@functools.cache
def _validator(schema: str) -> Any:
    """Return the validator of a schema, which takes as long to make as to use."""
    return OAS30Validator({**json.loads(schema), **_COMPONENTS})


def _unknown(schema: dict[str, Any], value: object, where: str) -> list[str]:
    schema = _resolved(schema)
    if isinstance(value, list):
        items = schema.get("items", {})
        return [fault for one in value for fault in _unknown(items, one, where)]
    properties = schema.get("properties")
    if not isinstance(value, dict) or properties is None:
        return []
    wrong = [f"unknown key {where}{key}" for key in value if key not in properties]
    for key, one in value.items():
        wrong += _unknown(properties.get(key, {}), one, f"{where}{key}.")
    return wrong


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while True:
        if "$ref" in schema:
            schema = SPEC["schemas"][schema["$ref"].rpartition("/")[2]]
        elif len(schema.get("allOf", ())) == 1:
            schema = schema["allOf"][0]
        else:
            return schema
