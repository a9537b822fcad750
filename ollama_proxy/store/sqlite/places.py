"""Keep what is known of the models of each place: one row a place."""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.core.ollama.lessons import Lessons
from ollama_proxy.store.ports import PLACES
from ollama_proxy.store.sqlite.database import Database, Table
from ollama_proxy.store.sqlite.salvage import read_contents

_LESSONS: Final = msgspec.msgpack.Decoder(Lessons)
_T = TypeVar("_T")


class SqlitePlaces(Table):
    """Keeps the rows of all places."""

    def place(self, name: str) -> "SqlitePlace":
        """Return what is known of the models of one place."""
        return SqlitePlace(self._db, name)


class SqlitePlace(Table):
    """Keeps the row of one place, by its present ``name``."""

    def __init__(self, database: Database, name: str) -> None:
        super().__init__(database)
        self.name = name

    def contents(self) -> Snapshot | None:
        """Return the newest instance's answers about its models."""
        return self._decoded("contents", read_contents)

    def put_contents(self, contents: Snapshot) -> None:
        """Write the answers of the newest instance. Raises `StoreError`."""
        self._write("contents", msgspec.msgpack.encode(contents))

    def lessons(self) -> Lessons:
        """Return what the instances taught besides."""
        return self._decoded("lessons", _LESSONS.decode) or Lessons()

    def put_lessons(self, lessons: Lessons) -> None:
        """Write what the instances taught. Raises `StoreError`."""
        self._write("lessons", msgspec.msgpack.encode(lessons))

    def _decoded(self, column: str, read: Callable[[bytes], _T]) -> _T | None:
        """Return a column; what can't be read is none, as before the first instance."""
        raw = self._read(column)
        if raw is None:
            return None
        try:
            return read(raw)
        except (ValueError, TypeError) as error:
            self._db.discard(
                f"the {column} of {self.name!r} can't be read ({error})",
                f"UPDATE place SET {column} = NULL WHERE name = ?",  # noqa: S608 - ours
                (self.name,),
            )
            return None

    def _read(self, column: str) -> bytes | None:
        query = f"SELECT {column} FROM place WHERE name = ?"  # noqa: S608 - our own
        row = self._db.execute(query, (self.name,)).fetchone()
        return row[0] if row else None

    def _write(self, column: str, value: bytes) -> None:
        """Write one column, and forget the places that were written long ago."""
        with self._db.writing() as db:
            db.execute(
                f"INSERT INTO place (name, written, {column})"  # noqa: S608 - our own
                " VALUES (?, (SELECT 1 + coalesce(max(written), 0) FROM place), ?)"
                " ON CONFLICT (name) DO UPDATE SET written = excluded.written,"
                f" {column} = excluded.{column}",
                (self.name, value),
            )
            db.execute(
                "DELETE FROM place WHERE name NOT IN"
                " (SELECT name FROM place ORDER BY written DESC LIMIT ?)",
                (PLACES,),
            )
