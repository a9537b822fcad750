"""Keep the journal: one line for each change of an instance's state."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.store.ports import JOURNAL_LINES
from ollama_proxy.store.sqlite.database import Table


class SqliteJournal(Table):
    """Writes and reads the lines of the journal."""

    def journal(self, limit: int = 50) -> list[Transition]:
        """Return the newest transitions, newest first. Raises `StoreError`."""
        with self._db.reading() as db:
            rows = db.execute(
                "SELECT at, slot, launch_id, before, after, event, fault, report"
                " FROM journal ORDER BY id DESC LIMIT ?",
                (limit,),
            )
            return [Transition(*row) for row in rows]

    def add_line(self, line: Transition) -> None:
        """Write a line of the journal that changes no record. Raises `StoreError`."""
        with self._db.writing() as db:
            add_line(db, line, self._db.journal_lines)


def add_line(db: sqlite3.Connection, line: Transition, most: int) -> None:
    """Write a line, within a transaction of the caller's; ``most`` are kept."""
    db.execute(
        "INSERT INTO journal VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
        msgspec.structs.astuple(line),
    )
    db.execute(
        "DELETE FROM journal WHERE id <= (SELECT max(id) FROM journal) - ?",
        (most,),
    )


def add_line_beside(path: Path, line: Transition) -> None:
    """Write a line into the state file of a running proxy.

    Raises `StoreError` if it is not on disk afterwards.
    """
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as db, db:
            add_line(db, line, JOURNAL_LINES)
    except (sqlite3.Error, ValueError) as error:
        said = f"the journal in {str(path)!r} can't be written: {error}"
        raise StoreError(said) from error
