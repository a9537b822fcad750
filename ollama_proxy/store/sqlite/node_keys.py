"""Keep the keys of nodes and the tokens to join with: of each text only its digest."""

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import msgspec

from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.nodes.node_keys import JoinToken, NodeKey, NodeKeyId
from ollama_proxy.store.sqlite.audit import add_audit
from ollama_proxy.store.sqlite.database import Table
from ollama_proxy.store.sqlite.schema import NODE_KEY_MADE
from ollama_proxy.store.state_folder import has_node_keys_mark, write_node_keys_mark

T = TypeVar("T")

_PUT_KEY = "INSERT OR REPLACE INTO node_key VALUES (?, ?)"
_PUT_TOKEN = "INSERT OR REPLACE INTO join_token VALUES (?, ?)"  # noqa: S105 - SQL
_DROP_KEY = "DELETE FROM node_key WHERE id = ?"
_DROP_TOKEN = "DELETE FROM join_token WHERE id = ?"  # noqa: S105 - SQL


class SqliteNodeKeys(Table):
    """Keeps one row a key and one a token, and the mark that there was a key.

    The mark is also a file beside the database: without it a lost database would let
    machines without a key in again.
    """

    def all_node_keys(self) -> list[NodeKey]:
        """Return every key of a node, by id; an unreadable one is no longer taken."""
        rows = self._db.execute("SELECT id, key FROM node_key ORDER BY id").fetchall()
        return self._read(rows, NodeKey, "the key of a node", _DROP_KEY)

    def put_node_key(self, key: NodeKey) -> None:
        """Write a key in place of the one with its id. Raises `StoreError`."""
        with self._db.writing() as db:
            db.execute(_PUT_KEY, _row(key))

    def drop_node_key(self, key_id: NodeKeyId, line: AuditLine) -> None:
        """Forget a key and write the line. Raises `StoreError`."""
        with self._db.writing() as db:
            db.execute(_DROP_KEY, (key_id,))
            add_audit(db, line)

    def join_tokens(self) -> list[JoinToken]:
        """Return every join token that is kept, by id."""
        query = "SELECT id, token FROM join_token ORDER BY id"
        rows = self._db.execute(query).fetchall()
        return self._read(rows, JoinToken, "a join token", _DROP_TOKEN)

    def put_join_token(self, token: JoinToken, line: AuditLine) -> None:
        """Write a token and its line of the audit. Raises `StoreError`."""
        with self._db.writing() as db:
            db.execute(_PUT_TOKEN, _row(token))
            add_audit(db, line)

    def drop_join_tokens(
        self, token_ids: Collection[str], line: AuditLine | None = None
    ) -> None:
        """Forget tokens and write the line, if any. Raises `StoreError`."""
        with self._db.writing() as db:
            db.executemany(_DROP_TOKEN, [(token_id,) for token_id in token_ids])
            if line is not None:
                add_audit(db, line)

    def join_node(
        self,
        token: JoinToken,
        key: NodeKey,
        replaced: Collection[NodeKeyId],
        line: AuditLine,
    ) -> None:
        """Write a used token and its key, forget replaced ones, all or nothing."""
        with self._db.writing() as db:
            db.execute(_PUT_TOKEN, _row(token))
            db.executemany(_DROP_KEY, [(key_id,) for key_id in replaced])
            db.execute(_PUT_KEY, _row(key))
            db.execute(NODE_KEY_MADE)
            add_audit(db, line)
        write_node_keys_mark(self._db.folder)

    def was_node_key_made(self) -> bool:
        """Tell whether there ever was a key of a node; restore a lost file of it."""
        query = "SELECT 1 FROM meta WHERE key = 'node_key_made'"
        is_known = self._db.execute(query).fetchone() is not None
        if is_known:
            write_node_keys_mark(self._db.folder)
        return is_known or has_node_keys_mark(self._db.folder)

    def _read(
        self, rows: Sequence[Any], kind: type[T], name: str, drop: str
    ) -> list[T]:
        found = []
        for row_id, raw in rows:
            try:
                found.append(msgspec.json.decode(raw, type=kind))
            except (ValueError, TypeError) as error:
                what = f"{name} can't be read ({error}), so it is not taken"
                self._db.discard(what, drop, (row_id,))
        return found


def _row(value: JoinToken | NodeKey) -> tuple[str, bytes]:
    return value.id, msgspec.json.encode(value)
