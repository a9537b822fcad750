"""What tests of the gateway share: a clock that stands still, keys, a store."""

from dataclasses import dataclass

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.store.memory import MemoryStore

NOW = 1_800_000_000.0
"""2027-01-15T08:00:00Z, for every clock of these tests."""


@dataclass
class SetClock:
    """A clock that shows what a test sets."""

    at: float = NOW

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


class FullStore(MemoryStore):
    """Takes no key any more, and no line of the audit."""

    def put_key(self, key: Key, line: AuditLine) -> None:
        raise StoreError("disk full")

    def drop_key(self, key_id: KeyId, line: AuditLine) -> None:
        raise StoreError("disk full")

    def add_audit(self, line: AuditLine) -> None:
        raise StoreError("disk full")
