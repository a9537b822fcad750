"""Keep the keys of clients: of each text only its digest."""

import msgspec

from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.store.sqlite.audit import add_audit
from ollama_proxy.store.sqlite.database import Table
from ollama_proxy.store.sqlite.schema import NEED_KEYS
from ollama_proxy.store.state_folder import has_keys_mark, write_keys_mark


class SqliteKeys(Table):
    """Keeps one row a key, and the mark that requests need one.

    The mark is also a file beside the database: without it a lost database would let
    everybody in.
    """

    def all_keys(self) -> list[Key]:
        """Return every key, by name; one that can't be read is no longer taken."""
        found = []
        rows = self._db.execute("SELECT id, name, key FROM key ORDER BY name")
        for key_id, name, raw in rows.fetchall():
            try:
                found.append(msgspec.json.decode(raw, type=Key))
            except (ValueError, TypeError) as error:
                self._db.discard(
                    f"the key {name!r} can't be read ({error}), so it is not taken",
                    "DELETE FROM key WHERE id = ?",
                    (key_id,),
                )
        return found

    def put_key(self, key: Key, line: AuditLine) -> None:
        """Write a key and its line of the audit. Raises `StoreError`."""
        row = (key.id, key.name, msgspec.json.encode(key))
        with self._db.writing() as db:
            db.execute(
                "INSERT INTO key VALUES (?, ?, ?) ON CONFLICT (id)"
                " DO UPDATE SET name = excluded.name, key = excluded.key",
                row,
            )
            if key.rights.are_for_clients:
                db.execute(NEED_KEYS)
            add_audit(db, line)
        if key.rights.are_for_clients:
            write_keys_mark(self._db.folder)

    def drop_key(self, key_id: KeyId, line: AuditLine) -> None:
        """Forget a key with its commitments, write its line. Raises `StoreError`."""
        with self._db.writing() as db:
            db.execute("DELETE FROM key WHERE id = ?", (key_id,))
            db.execute("DELETE FROM commitment WHERE key = ?", (key_id,))
            add_audit(db, line)

    def are_keys_needed(self) -> bool:
        """Tell whether there ever was a key for clients; restore a lost file of it."""
        query = "SELECT 1 FROM meta WHERE key = 'keys_needed'"
        is_known = self._db.execute(query).fetchone() is not None
        if is_known:
            write_keys_mark(self._db.folder)
        return is_known or has_keys_mark(self._db.folder)

    def need_keys(self) -> None:
        """Write the mark that requests need a key. Raises `StoreError`."""
        with self._db.writing() as db:
            db.execute(NEED_KEYS)
        write_keys_mark(self._db.folder)
