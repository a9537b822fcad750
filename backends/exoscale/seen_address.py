"""Find the address that our calls come from in Exoscale's log of changes. Pure.

The log contains only changes, of the last 24 hours, and lags. Several machines may use
one key: an event that names something of ours is ours, any other may be theirs.
"""

import ipaddress
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Sighting:
    """Holds the ``network``, of one address, that sent a call of ours."""

    network: str
    at: datetime


def last_sighting(
    events: Iterable[Any], *, key: str, names: Collection[str]
) -> Sighting | None:
    """Return the source of the newest call with our ``key``; None if unknown.

    Calls about things in ``names`` (ids, or parts of names) have priority over newer
    ones about other things. IPv6 addresses are ignored, since instances have IPv4
    addresses only.
    """
    ours: list[Sighting] = []
    others: list[Sighting] = []
    for event in events:
        sighting = _sighting(event, key)
        if sighting is not None:
            told = json.dumps([event.get(part) for part in _PARTS], default=str)
            is_named = any(name in told for name in names)
            (ours if is_named else others).append(sighting)
    return max(ours or others, key=lambda one: one.at, default=None)


_PARTS = ("path-params", "body-params", "uri")


def _sighting(event: Any, key: str) -> Sighting | None:
    """Parse one event; any of its keys may be missing or invalid."""
    if not isinstance(event, dict):
        return None
    by = event.get("iam-api-key")
    if not isinstance(by, dict) or by.get("key") != key:
        return None
    try:
        address = ipaddress.IPv4Address(event.get("source-ip") or "")
        at = datetime.fromisoformat(event.get("timestamp") or "")
    except (TypeError, ValueError):
        return None
    return Sighting(f"{address}/32", at if at.tzinfo else at.replace(tzinfo=UTC))
