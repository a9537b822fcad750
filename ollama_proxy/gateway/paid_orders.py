"""Let a key's orders to wake an instance cost what requests of the key would."""

from collections.abc import Iterator
from contextlib import contextmanager

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.access.decision import (
    KeyRefusal,
    KeyUse,
    decide_money,
    forbidden,
)
from ollama_proxy.core.access.keys import Key
from ollama_proxy.gateway.spending import Spending


class PaidOrders:
    """Holds orders to wake against the budgets of the keys that give them.

    The right to give orders is no right to spend beyond a budget.
    """

    def __init__(self, spending: Spending, clock: Clock) -> None:
        self._spending = spending
        self._clock = clock

    def refusal(self, key: Key | None, pool: str) -> KeyRefusal | None:
        """Return why a key may not wake an instance of a pool. Raises `StoreError`."""
        if key is not None and not key.rights.may_wake:
            told = f"the key {key.name!r} may not start an instance"
            return forbidden(told)
        if key is None or not key.rights.has_budget or not self._spending.is_needed:
            return None
        day, month = self._spending.totals(key)
        unpriced = self._spending.forecast_wake(pool).unpriced
        usage = KeyUse(money_day=day, money_month=month, unpriced=unpriced)
        return decide_money(key, usage, self._clock.wall())

    @contextmanager
    def paid_by(self, key: Key | None, pool: str) -> Iterator[None]:
        """Let a key pay for the launch that begins meanwhile. Raises `StoreError`."""
        if key is None or not self._spending.is_needed:
            yield
            return
        expense = self._spending.begin(key, "", self._spending.forecast_wake(pool))
        self._spending.wish(expense, pool)
        try:
            yield
        finally:
            self._spending.end(expense)
