"""Decide whether a request for an unknown model may start an instance. Pure.

A model that is not there would start a machine only to say so.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from ollama_proxy.core.ollama.request_fields import BodyFields
from ollama_proxy.core.ollama.routes import Kind, Route

WAKES_PER_HOUR: Final = 3
"""How many launches in an hour unknown names may cause together."""


class WakeRule(StrEnum):
    """Says whether an unknown model wakes: by the rules above, always, or never."""

    AUTO = "auto"
    TRUE = "true"
    FALSE = "false"


class Fate(Enum):
    """Names the decision on a request.

    ``PASS``: what becomes of any request. ``WAKE``: the same, and its name had its
    one launch. ``JOIN``: it may wait for the launch that others caused. ``ABSENT``: the
    model is not there. ``LATER``: that is unknown, and it is looked for another time.
    """

    PASS = "pass"  # noqa: S105 - no password
    WAKE = "wake"
    JOIN = "join"
    ABSENT = "absent"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class NameFacts:
    """Holds what is known of the name, while no instance serves.

    ``listed``: whether there is a list at all. ``launches``: whether the request would
    begin a launch. ``wakes``: how many launches unknown names caused lately.
    """

    known: bool
    absent: bool
    listed: bool
    starts_empty: bool
    launches: bool
    wakes: int


def fate_of(rule: WakeRule, facts: NameFacts) -> Fate:
    """Return the decision on a request for a model."""
    if facts.known or rule is WakeRule.TRUE:
        return Fate.PASS
    if rule is WakeRule.FALSE:
        return Fate.ABSENT
    if not facts.listed:
        return Fate.PASS
    if facts.starts_empty or facts.absent:
        return Fate.ABSENT
    if not facts.launches:
        return Fate.JOIN
    return Fate.WAKE if facts.wakes < WAKES_PER_HOUR else Fate.LATER


_WRITES = frozenset({"/api/push", "/api/delete"})


def sought_name(route: Route, fields: BodyFields) -> str:
    """Return the model that a request can't do without; "" if it has none.

    A pull or a create is what brings a model.
    """
    if route.name == "/api/copy":
        return fields.source_name
    seeks = route.kind is Kind.INFERENCE or route.name in _WRITES
    return fields.model_name if seeks else ""


def absence(route_name: str, name: str) -> str:
    """Return how Ollama says that a model is not there (``server/routes.go``)."""
    match route_name:
        case "/api/embed" | "/api/embeddings" | "/v1/embeddings":
            return f'model "{name}" not found, try pulling it first'
        case "/api/copy":
            return f'model "{name}" not found'
        case _:
            return f"model '{name}' not found"
