"""Decide whether a request for an unknown model may start an instance. Pure.

If the model does not exist, the instance would start only to answer 404.
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

    - ``PASS``: treat it as any request.
    - ``WAKE``: the same, and count the one launch that its name may cause.
    - ``JOIN``: it may wait for a launch that others caused.
    - ``ABSENT``: the model does not exist.
    - ``LATER``: that is unknown, but too many unknown names woke lately.
    """

    PASS = "pass"  # noqa: S105 - no password
    WAKE = "wake"
    JOIN = "join"
    ABSENT = "absent"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class NameFacts:
    """Holds the known facts about the name, while no instance is ready.

    ``listed``: there is a list of models. ``launches``: the request would begin a
    launch. ``wakes``: number of recent launches by unknown names.
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
    """Return the model that a request needs; "" if it needs none.

    A pull or a create needs none: it adds the model.
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
