"""Keep the record of each slot, and a mark of the clock beside it."""

import contextlib
import sqlite3
from collections.abc import Collection

import msgspec

from ollama_proxy.base.clock import Marking
from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.moments import Mark
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.launch_limit import without_launch
from ollama_proxy.core.lifecycle.record import LaunchId, Record
from ollama_proxy.store.sqlite.database import Table
from ollama_proxy.store.sqlite.journal import add_line
from ollama_proxy.store.sqlite.salvage import doomed, read_record


class SqliteMarks(Table):
    """Keeps the mark by which a later process compares its moments with ours."""

    def mark(self) -> Mark | None:
        """Return the last mark of a clock; None if none can be read."""
        query = "SELECT value FROM meta WHERE key = 'mark'"
        row = self._db.execute(query).fetchone()
        try:
            return msgspec.json.decode(row[0], type=Mark) if row else None
        except msgspec.MsgspecError:
            return None

    def mark_with(self, clock: Marking) -> None:
        """Write a mark of this clock now, and with each record from now on."""
        self._db.clock = clock
        self.put_mark()

    def put_mark(self) -> None:
        """Write a mark of the clock; without a disk the one before has to do."""
        with contextlib.suppress(StoreError), self._db.writing() as db:
            self._put_mark(db)

    def _put_mark(self, db: sqlite3.Connection) -> None:
        if self._db.clock is not None:
            mark = msgspec.json.encode(self._db.clock.mark()).decode()
            db.execute("INSERT OR REPLACE INTO meta VALUES ('mark', ?)", (mark,))


class SqliteRecords(SqliteMarks):
    """Keeps the record of each slot."""

    def get(self, slot: str) -> Record | None:
        """Return the record of a slot, if it ever had one.

        If it can't be read, return a record that stops its launch (`doomed`): on a full
        disk the mended record may be missing.
        """
        query = "SELECT launch_id, record FROM instance WHERE slot = ?"
        row = self._db.execute(query, (slot,)).fetchone()
        if row is None:
            return None
        try:
            return read_record(row[1])
        except ValueError:
            return doomed(LaunchId(row[0]) if row[0] else None, self._db.date())

    def put(self, slot: str, record: Record, transition: Transition | None) -> None:
        """Write a record, and a line of the journal if the state changed.

        Raises `StoreError` if it is not on disk afterwards.
        """
        raw = msgspec.json.encode(record)
        with self._db.writing() as db:
            self._put_mark(db)
            db.execute(
                "INSERT OR REPLACE INTO instance VALUES (?, ?, ?, ?)",
                (slot, record.state.value, record.launch_id, raw),
            )
            if transition is not None:
                add_line(db, transition, self._db.journal_lines)

    async def reserve(self, slot: str, launch: Record, transition: Transition) -> None:
        """Write a launch that is about to begin. Raises `StoreError`.

        It never suspends: a commit takes a few milliseconds, and handing it to a thread
        would cost as much again.
        """
        self.put(slot, launch, transition)

    def launch_ids(self) -> set[LaunchId]:
        """Return every launch that a record names. Raises `StoreError`."""
        return set(self.launches().values())

    def launches(self) -> dict[str, LaunchId]:
        """Return the launches on record, by their slots. Raises `StoreError`."""
        with self._db.reading() as db:
            rows = db.execute(
                "SELECT slot, launch_id FROM instance WHERE launch_id IS NOT NULL"
            )
            return {str(row[0]): LaunchId(row[1]) for row in rows}

    def remembers(self, launch_id: LaunchId) -> bool:
        """Tell whether a launch is or was on record.

        Each launch is written before its cloud is called. If the file was damaged,
        every launch counts as ours.
        """
        if self._db.damage:
            return True
        query = (
            "SELECT 1 FROM journal WHERE launch_id = ?"
            " UNION SELECT 1 FROM instance WHERE launch_id = ?"
        )
        with self._db.reading() as db:
            return db.execute(query, (launch_id, launch_id)).fetchone() is not None

    def forget(self, launch_ids: Collection[LaunchId]) -> None:
        """Remove launches that have ended from every record."""
        rows = self._db.execute("SELECT slot, launch_id FROM instance").fetchall()
        for slot, launch_id in rows:
            if launch_id in launch_ids:
                self.put(slot, without_launch(self.get(slot) or Record()), None)
