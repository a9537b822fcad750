"""Judge bodies by an API's own description: their shape, and every unknown key."""

import functools
import json
from typing import Any

from openapi_schema_validator import OAS30Validator


class Judge:
    """Judges bodies by the named ``schemas`` of one description."""

    def __init__(self, schemas: dict[str, Any]) -> None:
        self._schemas = schemas
        # A body is judged once, since most answers are those of the poll before; and a
        # validator takes as long to make as to use.
        self._judged = functools.lru_cache(maxsize=10_000)(self._judge)
        self._validator = functools.cache(self._make_validator)

    def faults(self, schema: dict[str, Any], value: object) -> list[str]:
        """Return what is wrong with a body."""
        return [*self._judged(json.dumps(schema, sort_keys=True), json.dumps(value))]

    def _judge(self, schema_text: str, text: str) -> tuple[str, ...]:
        schema, value = json.loads(schema_text), json.loads(text)
        errors = self._validator(schema_text).iter_errors(value)
        wrong = [error.message for error in errors]
        return (*wrong, *self._unknown(schema, value, ""))

    def _make_validator(self, schema: str) -> Any:
        components = {"components": {"schemas": self._schemas}}
        return OAS30Validator({**json.loads(schema), **components})

    def _unknown(self, schema: dict[str, Any], value: object, where: str) -> list[str]:
        schema = self._resolved(schema)
        if isinstance(value, list):
            items = schema.get("items", {})
            return [
                fault for one in value for fault in self._unknown(items, one, where)
            ]
        properties = schema.get("properties")
        if not isinstance(value, dict) or properties is None:
            return []
        wrong = [f"unknown key {where}{key}" for key in value if key not in properties]
        for key, one in value.items():
            wrong += self._unknown(properties.get(key, {}), one, f"{where}{key}.")
        return wrong

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema that a reference, or the only part of a sum, stands for."""
        while True:
            if "$ref" in schema:
                schema = self._schemas[schema["$ref"].rpartition("/")[2]]
            elif len(schema.get("allOf", ())) == 1:
                schema = schema["allOf"][0]
            else:
                return schema
