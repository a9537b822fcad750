"""Read the outcome of a creation from its operation, afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ollama_proxy.backends.base.placement import Placement

_FAILED = frozenset({"failure", "timeout"})
_OUR_FAULT = frozenset({"forbidden", "incorrect", "not-found", "unsupported"})
"""Reasons of an operation that point to the order; any other may be a lack of room.

Inferred: Exoscale does not document how it reports a lack of capacity.
"""


@dataclass(frozen=True, slots=True)
class Making:
    """Says how a create operation stands, and why it failed if it did.

    ``reason``: for an `Observation`. ``told``: the operation in a line, for a report.
    """

    state: str
    words: str = ""
    reason: str = ""
    told: str = ""

    @property
    def has_failed(self) -> bool:
        """Tell whether nothing will come of it any more."""
        return self.state in _FAILED


def read_making(operation: Mapping[str, Any], placement: Placement) -> Making:
    """Parse an operation; any of its keys may be missing."""
    state = str(operation.get("state") or "pending")
    code = str(operation.get("reason") or "")
    said = " ".join(str(operation.get("message") or "").split())[:200]
    words = ", ".join(one for one in (state, code, said) if one)
    told = f"operation {operation['id']}: {words}" if operation.get("id") else ""
    if state not in _FAILED:
        return Making(state, told=told)
    why = ": ".join(words for words in (code, said) if words) or "no reason given"
    words = f"Exoscale made no {placement.type_name} in {placement.location}: {why}"
    return Making(state, words, "" if code in _OUR_FAULT else "capacity", told)
