"""What is known of the models of one place, on disk.

A place is what models outlive an instance on: a disk, a volume, a bucket, or the
image that each instance begins with. What the instances of one place said is not
true of another, so each has a row of its own.
"""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, TypeVar

import msgspec

from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.store.lessons import Lessons
from ollama_proxy.store.state_repair import read_contents

PLACES: Final = 16
"""How many places are remembered: those that were written last."""

_LESSONS = msgspec.msgpack.Decoder(Lessons)
_T = TypeVar("_T")


class Place:
    """The row of one place, of that which has its ``name`` now."""

    def __init__(
        self,
        db: sqlite3.Connection,
        writing: Callable[[], AbstractContextManager[sqlite3.Connection]],
        name: str,
        discard: Callable[[str, str, tuple[object, ...]], None],
    ) -> None:
        self.name = name
        self._discard = discard
        self._db = db
        self._writing = writing

    def contents(self) -> Snapshot | None:
        """Return what the newest instance said of its models."""
        return self._decoded("contents", read_contents)

    def put_contents(self, contents: Snapshot) -> None:
        """Write what the newest instance said. Raises `StoreError`."""
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
            self._discard(
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
        with self._writing() as db:
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
