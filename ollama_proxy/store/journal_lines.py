"""Write lines of the journal."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.journal import Transition

_ROWS = 1000


def add_line(db: sqlite3.Connection, line: Transition) -> None:
    """Write a line, within a transaction of the caller's; the oldest ones go."""
    db.execute(
        "INSERT INTO journal VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
        msgspec.structs.astuple(line),
    )
    db.execute(
        "DELETE FROM journal WHERE id <= (SELECT max(id) FROM journal) - ?", (_ROWS,)
    )


def add_line_beside(path: Path, line: Transition) -> None:
    """Write a line into the state file of a proxy that runs.

    Raises `StoreError` if it is not on disk afterwards.
    """
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as db, db:
            add_line(db, line)
    except (sqlite3.Error, ValueError) as error:
        said = f"the journal in {str(path)!r} can't be written: {error}"
        raise StoreError(said) from error
