"""Keep what keys used in memory: see `ollama_proxy.store.memory`."""

from collections.abc import Collection

from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.access.usage import (
    BY_ALL,
    UsageField,
    UsageRow,
    rows_since,
    sum_rows,
)


class MemoryUsage:
    """Adds up what keys used."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[UsageRow] = []

    def add_usage(self, rows: Collection[UsageRow]) -> None:
        """Add each row to the one of its day, key and model."""
        self._rows = sum_rows([*self._rows, *rows], BY_ALL)

    def usage(
        self, since: str, key_id: KeyId | None, by: Collection[UsageField]
    ) -> list[UsageRow]:
        """Return sums since a day, of one key or of all."""
        return sum_rows(rows_since(self._rows, since, key_id), by)

    def trim_usage(self, since: str, most: int) -> None:
        """Forget old days, and the oldest rows beyond ``most``."""
        kept = [row for row in self._rows if row.day >= since]
        kept.sort(key=lambda row: row.day, reverse=True)
        self._rows = sum_rows(kept[:most], BY_ALL)
