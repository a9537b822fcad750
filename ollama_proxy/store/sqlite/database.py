"""Hold the open state file: read it, write it, report its damage."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Marking, SystemClock
from ollama_proxy.base.errors import StartupError, StoreError
from ollama_proxy.store.ports import JOURNAL_LINES
from ollama_proxy.store.sqlite.state_file import Opened, keep_copy, open_state
from ollama_proxy.store.state_folder import STATE_FILE, file_mode, make_private


class Database:
    """Opens the state file of one folder.

    ``problem``: why the last write failed, until one succeeds again. ``damage``:
    descriptions of what an earlier process left unreadable. ``clock``: its mark is
    written with each record, if it is set. ``journal_lines``: how many are kept.
    """

    def __init__(self, folder: Path, journal_lines: int = JOURNAL_LINES) -> None:
        self.folder = folder
        self.journal_lines = journal_lines
        self.problem: str | None = None
        self.damage: list[str] = []
        self.clock: Marking | None = None
        self._path = folder / STATE_FILE
        self._copy: Path | None = None
        self._log = structlog.get_logger()
        self.date = SystemClock().wall
        self.opened = self._open()
        self._db = self.opened.db

    def _open(self) -> Opened:
        try:
            make_private(self._path, file_mode(self.folder))
        except OSError as error:
            raise StartupError(
                f"the state file {str(self._path)!r} can't be written"
                f" ({error.strerror}); make room and see to its rights, or set"
                " OLLAMA_PROXY_STATE_DIR to another folder"
            ) from error
        return open_state(self._path, self.date())

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def execute(self, query: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Read. Raises `sqlite3.Error`, which `reading` turns into ours."""
        return self._db.execute(query, values)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read what must not be missing. Raises `StoreError`."""
        try:
            yield self._db
        except sqlite3.Error as error:
            raise StoreError(
                f"the state can't be read: {error}; start the proxy anew, which mends"
                f" {str(self._path)!r}"
            ) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write all of it or nothing; it is on disk afterwards. Raises `StoreError`."""
        try:
            with self._db:
                yield self._db
        except (sqlite3.Error, ValueError) as error:
            self.problem = (
                f"the state can't be written: {error}; no instance is started until it"
                f" can: make room in {str(self.folder)!r}, or set"
                " OLLAMA_PROXY_STATE_DIR to another folder"
            )
            raise StoreError(self.problem) from error
        self.problem = None

    def report(self, what: str) -> None:
        """Log damage, and keep the message for `check`."""
        self.damage.append(what)
        self._log.warning(log.STATE_DAMAGED, reason=what)

    def kept_copy(self) -> str:
        """Keep a copy of the file, once per process; return where, in words."""
        if self._copy is None:
            self._copy = keep_copy(self._path, self.date())
        if self._copy is None:
            return "there is no room for a copy"
        return f"the file as it was is {str(self._copy)!r}"

    def discard(self, what: str, statement: str, row: Sequence[object]) -> None:
        """Remove what can't be read; a copy of the file is kept, once per process."""
        self.report(f"{what}; {self.kept_copy()}")
        if self._copy is not None:
            with contextlib.suppress(StoreError), self.writing() as db:
                db.execute(statement, row)


class Table:
    """Works on some tables of a database."""

    def __init__(self, database: Database) -> None:
        self._db = database
