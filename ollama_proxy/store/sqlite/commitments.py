"""Keep what the limits of each key have promised: tokens and money by period."""

from typing import Final

from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.store.ports import PERIODS
from ollama_proxy.store.sqlite.database import Table

_FORGET_OLDEST: Final = (
    "DELETE FROM commitment WHERE key = ? AND kind = ? AND rowid NOT IN"
    " (SELECT rowid FROM commitment WHERE key = ? AND kind = ?"
    " ORDER BY rowid DESC LIMIT ?)"
)


class SqliteCommitments(Table):
    """Keeps the most that each key may have used."""

    def commitments(self, key: KeyId) -> dict[tuple[str, str], int]:
        """Return the commitments of a key. Raises `StoreError`."""
        query = "SELECT kind, period, amount FROM commitment WHERE key = ?"
        with self._db.reading() as db:
            rows = db.execute(query, (key,)).fetchall()
        return {
            (str(kind), str(period)): amount
            for kind, period, amount in rows
            if isinstance(amount, int)
        }

    def put_commitment(self, key: KeyId, kind: str, period: str, amount: int) -> None:
        """Write a commitment. Raises `StoreError` if it is not on disk afterwards."""
        with self._db.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO commitment VALUES (?, ?, ?, ?)",
                (key, kind, period, amount),
            )
            db.execute(_FORGET_OLDEST, (key, kind, key, kind, PERIODS))
