"""Keep in memory what the limits of each key have promised."""

from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.store.ports import PERIODS


class MemoryCommitments:
    """Keeps the most that each key may have used."""

    def __init__(self) -> None:
        self._committed: dict[KeyId, dict[tuple[str, str], int]] = {}

    def commitments(self, key: KeyId) -> dict[tuple[str, str], int]:
        """Return the commitments of a key."""
        return dict(self._committed.get(key, {}))

    def put_commitment(self, key: KeyId, kind: str, period: str, amount: int) -> None:
        """Write a commitment."""
        rows = self._committed.setdefault(key, {})
        rows.pop((kind, period), None)
        rows[kind, period] = amount
        for old in [name for name in rows if name[0] == kind][:-PERIODS]:
            del rows[old]

    def drop_commitments(self, key: KeyId) -> None:
        """Forget the commitments of a key."""
        self._committed.pop(key, None)
