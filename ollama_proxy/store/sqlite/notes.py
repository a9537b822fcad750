"""Keep what each backend has to know of its launches after a crash."""

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.store.sqlite.database import Database, Table


class SqliteNotes(Table):
    """Keeps the notes of all backends."""

    def notes_of(self, backend: str) -> "SqliteBackendNotes":
        """Return the notes of one backend; no other sees them."""
        return SqliteBackendNotes(self._db, backend)


class SqliteBackendNotes(Table):
    """Keeps the notes of one backend."""

    def __init__(self, database: Database, backend: str) -> None:
        super().__init__(database)
        self._backend = backend

    def notes(self) -> dict[LaunchId, bytes]:
        """Return every note."""
        rows = self._db.execute(
            "SELECT name, note FROM backend_note WHERE backend = ?", (self._backend,)
        )
        return {LaunchId(row[0]): row[1] for row in rows}

    def put_note(self, launch_id: LaunchId, note: bytes) -> None:
        """Write a note. Raises `StoreError` if it is not on disk afterwards."""
        row = (self._backend, launch_id, note)
        with self._db.writing() as db:
            db.execute("INSERT OR REPLACE INTO backend_note VALUES (?, ?, ?)", row)

    def drop_note(self, launch_id: LaunchId) -> None:
        """Forget a note. Raises `StoreError`."""
        row = (self._backend, launch_id)
        with self._db.writing() as db:
            db.execute("DELETE FROM backend_note WHERE backend = ? AND name = ?", row)
