"""Describe a key by the words with which it is made: never its text or its digest."""

from collections.abc import Mapping
from typing import Any, Final

from ollama_proxy.base.clock import Clock, date_of
from ollama_proxy.core.access.days import utc_time
from ollama_proxy.core.access.keys import Key, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.spending import amount_text

_STATED: Final = ("id", "name", "source", "standing", "made", "former_until")
"""Words of `key_body` that no option sets."""


def key_body(key: Key, clock: Clock, *, is_of_file: bool = False) -> dict[str, Any]:
    """Return what there is to know of a key, as JSON.

    ``parallel`` is the limit in force; ``former_until``: until when the text before the
    last rotation is taken.
    """
    rights, now = key.rights, clock.now()
    grace = key.former_until if now < key.former_until else None
    return {
        "id": key.id,
        "name": key.name,
        "source": "file" if is_of_file else "store",
        "standing": key.standing(now).value,
        "models": list(rights.models),
        "routes": [route.value for route in RouteClass if route in rights.routes],
        "rpm": rights.rpm,
        "parallel": rights.most_at_once,
        "tokens_per_day": rights.tokens_per_day,
        "budget": budget_words(rights),
        "no_wake": not rights.may_wake,
        "max_hold": rights.max_hold_s,
        "priority": rights.priority,
        "made": _date(clock, key.made_at) if key.made_at else None,
        "expires": _date(clock, key.expires_at),
        "former_until": _date(clock, grace),
    }


def budget_words(rights: Rights) -> list[str]:
    """Return the budgets as they are written: ``5/day``, ``0.5/month``."""
    amounts = {"day": rights.budget_day, "month": rights.budget_month}
    return [
        f"{amount_text(amount)}/{period}"
        for period, amount in amounts.items()
        if amount is not None
    ]


def terms_words(body: Mapping[str, Any]) -> str:
    """Return the terms of a new key in one line, for the audit: those that it has."""
    return "; ".join(
        f"{word} {_value_words(value)}"
        for word, value in body.items()
        if word not in _STATED and value not in (None, [], False, 0)
    )


def change_words(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return in one line which terms changed from what to what, for the audit."""
    return "; ".join(
        f"{word} {_value_words(before[word])} -> {_value_words(value)}"
        for word, value in after.items()
        if word not in _STATED and before[word] != value
    )


def _value_words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "all"
    if isinstance(value, float):
        return f"{value:g} s"
    return "none" if value is None else str(value)


def _date(clock: Clock, moment: float | None) -> str | None:
    """Return the date of a moment, as ``2027-01-31T12:00:00Z``."""
    return None if moment is None else utc_time(round(date_of(clock, moment)))
