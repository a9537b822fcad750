"""Keep the audit: one line for each use of an administrative right."""

import sqlite3

import msgspec

from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.store.ports import AUDIT_LINES
from ollama_proxy.store.sqlite.database import Table


class SqliteAudit(Table):
    """Writes and reads the lines of the audit."""

    def audit(self, limit: int = 50) -> list[AuditLine]:
        """Return the newest lines, newest first. Raises `StoreError`."""
        with self._db.reading() as db:
            rows = db.execute(
                "SELECT at, caller, address, action, target, detail"
                " FROM audit ORDER BY id DESC LIMIT ?",
                (limit,),
            )
            return [AuditLine(*row) for row in rows]

    def add_audit(self, line: AuditLine) -> None:
        """Write a line that changes no key. Raises `StoreError`."""
        with self._db.writing() as db:
            add_audit(db, line)


def add_audit(db: sqlite3.Connection, line: AuditLine) -> None:
    """Write a line, within a transaction of the caller's."""
    db.execute(
        "INSERT INTO audit VALUES (NULL, ?, ?, ?, ?, ?, ?)",
        msgspec.structs.astuple(line),
    )
    db.execute(
        "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (AUDIT_LINES,)
    )
