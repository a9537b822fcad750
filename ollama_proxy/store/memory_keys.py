"""Keep keys and the audit in memory: see `ollama_proxy.store.memory`."""

from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.store.ports import AUDIT_LINES


class MemoryKeys:
    """Holds the keys of clients, and a line for each use of an administrative right."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[KeyId, Key] = {}
        self._are_keys_needed = False
        self._audit: list[AuditLine] = []

    def all_keys(self) -> list[Key]:
        """Return every key, by name."""
        return sorted(self._keys.values(), key=lambda key: key.name)

    def put_key(self, key: Key, line: AuditLine) -> None:
        """Write a key and its line of the audit."""
        self._keys[key.id] = key
        self._are_keys_needed |= key.rights.are_for_clients
        self.add_audit(line)

    def drop_key(self, key_id: KeyId, line: AuditLine) -> None:
        """Forget a key and write its line."""
        self._keys.pop(key_id, None)
        self.add_audit(line)

    def are_keys_needed(self) -> bool:
        """Tell whether there ever was a key for clients."""
        return self._are_keys_needed

    def need_keys(self) -> None:
        """Remember that requests need a key."""
        self._are_keys_needed = True

    def audit(self, limit: int = 50) -> list[AuditLine]:
        """Return the newest lines, newest first."""
        return self._audit[::-1][:limit]

    def add_audit(self, line: AuditLine) -> None:
        """Write a line that changes no key."""
        self._audit.append(line)
        del self._audit[:-AUDIT_LINES]
