"""Hold the budgets of keys, and what requests and launches reserve of them."""

from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.days import utc_day, utc_month
from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.gateway.account_book import AccountBook
from ollama_proxy.gateway.accounts import Account
from ollama_proxy.store.ports import CommitmentStore

MONEY_DAY: Final = "money day"
MONEY_MONTH: Final = "money month"


class Reservation:
    """Holds an amount in each of the accounts of a key, until it is released."""

    __slots__ = ("accounts", "amount")

    def __init__(self, accounts: tuple[Account, ...], amount: int = 0) -> None:
        self.accounts = accounts
        self.amount = amount

    def release(self, amount: int, now: float) -> None:
        """Give back a part of it, or all."""
        amount = min(amount, self.amount)
        if amount <= 0:
            return
        self.amount -= amount
        for account in self.accounts:
            account.settle(amount, 0, now)


class Purses:
    """Finds the accounts of each key's budgets: of the present day and month, in UTC.

    A key without a budget has none.
    """

    def __init__(self, store: CommitmentStore, clock: Clock) -> None:
        self._clock = clock
        self._book = AccountBook(store)
        self._owed: dict[KeyId, int] = {}

    def of(self, key: Key) -> tuple[Account, ...]:
        """Return the accounts of a key, the day's first. Raises `StoreError`."""
        rights = key.rights
        if not rights.has_budget:
            return ()
        date, accounts = self._clock.wall(), []
        for kind, period, budget in (
            (MONEY_DAY, utc_day(date), rights.budget_day),
            (MONEY_MONTH, utc_month(date), rights.budget_month),
        ):
            if budget is not None:
                accounts.append(self._book.account(key.id, kind, period, budget))
        return tuple(accounts)

    def totals(self, key: Key) -> tuple[int, int]:
        """Return what is spent and reserved in the day and in the month.

        Raises `StoreError`.
        """
        accounts = list(self.of(key))
        rights = key.rights
        day = accounts.pop(0).total if rights.budget_day is not None else 0
        month = accounts.pop(0).total if rights.budget_month is not None else 0
        return day, month

    def accounts_now(self, key: Key) -> tuple[Account, ...]:
        """Return the accounts of a key; none while they can't be read."""
        try:
            return self.of(key)
        except StoreError:
            return ()

    def reserve(self, key: Key, amount: int) -> Reservation:
        """Reserve an amount in every budget, or in none. Raises `StoreError`."""
        reservation, now = Reservation(self.of(key)), self._clock.now()
        done: list[Account] = []
        try:
            for account in reservation.accounts:
                account.reserve(amount)
                done.append(account)
        except StoreError:
            for account in done:
                account.settle(amount, 0, now)
            raise
        reservation.amount = amount
        return reservation

    def reserve_anyway(self, key: Key, amount: int) -> Reservation:
        """Reserve what will be spent in any case."""
        try:
            reservation = Reservation(self.of(key), amount)
        except StoreError:
            return Reservation(())
        for account in reservation.accounts:
            account.reserve_anyway(amount)
        return reservation

    def spend(self, key: Key, amount: int) -> None:
        """Count money that was spent, whether or not it can be recorded now."""
        amount += self._owed.pop(key.id, 0)
        try:
            accounts = self.of(key)
        except StoreError:  # not readable: what was spent before is not known either
            self._owed[key.id] = amount
            return
        for account in accounts:
            account.settle(0, amount, self._clock.now())

    def close(self) -> None:
        """Record exactly what was spent, at the end of the process."""
        self._book.close()
