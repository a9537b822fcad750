"""Find the account of a key, of one kind and for one period."""

from typing import Final

from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.gateway.accounts import Account
from ollama_proxy.store.ports import CommitmentStore

_HELD: Final = 3
"""Periods of a kind that are in memory: the present one, and those before it."""


class AccountBook:
    """Holds the accounts that are in use; the others are read from the store."""

    def __init__(self, store: CommitmentStore) -> None:
        self._store = store
        self._held: dict[tuple[KeyId, str], dict[str, Account]] = {}

    def account(self, key: KeyId, kind: str, period: str, limit: int) -> Account:
        """Return an account, with its present limit. Raises `StoreError`."""
        accounts = self._held.setdefault((key, kind), {})
        account = accounts.get(period)
        if account is None:
            committed = self._store.commitments(key).get((kind, period), 0)
            account = Account(self._store, key, kind, period, committed)
            accounts[period] = account
            _let_go(accounts, period)
        account.limit = limit
        return account

    def close(self) -> None:
        """Record exactly what was used, at the end of the process."""
        for accounts in self._held.values():
            for account in accounts.values():
                account.close()


def _let_go(accounts: dict[str, Account], present: str) -> None:
    """Hold no account of long ago in memory, unless requests have yet to settle it."""
    settled = [name for name, its in accounts.items() if not its.reserved]
    for period in settled:
        if len(accounts) > _HELD and period != present:
            accounts.pop(period).close()
