"""Tell what a key uses now of what its limits allow, as JSON."""

from typing import Any

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.keys import Key
from ollama_proxy.core.access.spending import MILLIONTHS
from ollama_proxy.gateway.key_limits import KeyLimits


def use_body(limits: KeyLimits, key: Key) -> dict[str, Any]:
    """Return requests in progress, tokens of today, and money: used and reserved.

    Null: there is no such limit, or it can't be read.
    """
    rights = key.rights
    try:
        tokens = limits.tokens_of(key)
        day, month = limits.spending.totals(key)
    except StoreError:
        tokens, day, month = None, None, None
    return {
        "in_flight": limits.in_flight(key.id),
        "tokens_today": tokens,
        "spent_today": _money(day) if rights.budget_day is not None else None,
        "spent_this_month": _money(month) if rights.budget_month is not None else None,
    }


def _money(millionths: int | None) -> float | None:
    return None if millionths is None else millionths / MILLIONTHS
