"""What has to outlive the process: one SQLite file in the state folder.

It holds the owner id, the record of every slot (what is intended and known of
its instance), a journal of transitions, the catalogues, how long launches took, and
the models that clients put there. Writes are synchronous and few: a record is on
disk before its cloud is called, or the call is not made.
"""

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import msgspec
from filelock import FileLock, Timeout

from ollama_proxy.clock import Marking
from ollama_proxy.environment import is_without_home
from ollama_proxy.errors import StartupError, StoreError
from ollama_proxy.launch_limit import without_launch
from ollama_proxy.moments import Mark
from ollama_proxy.places import Place
from ollama_proxy.record import LaunchId, Record
from ollama_proxy.sticky import StickyModel

_JOURNAL_ROWS = 1000
_LAUNCH_ROWS = 20

MIGRATIONS: Final = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE instance (
        slot TEXT PRIMARY KEY, state TEXT NOT NULL, launch_id TEXT, record BLOB NOT NULL
    );
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, slot TEXT NOT NULL, launch_id TEXT,
        before TEXT NOT NULL, after TEXT NOT NULL, event TEXT NOT NULL, fault TEXT
    );
    CREATE TABLE catalogue (
        id INTEGER PRIMARY KEY CHECK (id = 1), contents BLOB NOT NULL
    );
    CREATE TABLE launch (
        id INTEGER PRIMARY KEY, offer TEXT NOT NULL, duration_s REAL NOT NULL
    );
    """,
    "CREATE TABLE sticky_model (name TEXT PRIMARY KEY, model BLOB NOT NULL);",
    "CREATE TABLE note (launch_id TEXT PRIMARY KEY, note BLOB NOT NULL);",
    """
    CREATE TABLE backend_note (
        backend TEXT, name TEXT, note BLOB NOT NULL, PRIMARY KEY (backend, name)
    );
    INSERT INTO backend_note SELECT 'exoscale', launch_id, note FROM note;
    DROP TABLE note;
    """,
    # The one catalogue of before may be any backend's: nobody can tell whose.
    """
    CREATE TABLE place (
        name TEXT PRIMARY KEY, written INTEGER NOT NULL, contents BLOB, lessons BLOB
    );
    DROP TABLE catalogue;
    """,
    "ALTER TABLE journal ADD COLUMN report TEXT;",
)
"""One script per version of the schema; the position is the version before it."""


class Transition(msgspec.Struct, frozen=True):
    """A line of the journal; ``at`` is a date in epoch seconds.

    ``fault``: why, in a sentence; ``report``: what else the backend said of it.
    """

    at: float
    slot: str
    launch_id: str | None
    before: str
    after: str
    event: str
    fault: str | None
    report: str | None = None


class Store:
    """The state of one deployment, owned by one process at a time.

    ``problem``: why the last write failed, until one succeeds again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problem: str | None = None
        self._clock: Marking | None = None
        self._lock = _lock_folder(folder)
        try:
            self._db = _open_database(folder / "state.sqlite3")
        except BaseException:
            self._lock.release()
            raise
        self.owner_id = self._owner_id()

    def close(self) -> None:
        """Close the file and let another process have the folder."""
        self._db.close()
        self._lock.release()

    def _owner_id(self) -> str:
        """Return the id of this deployment, drawn when the folder was new."""
        with self._writing() as db:
            new = secrets.token_hex(8)
            db.execute("INSERT OR IGNORE INTO meta VALUES ('owner_id', ?)", (new,))
            row = db.execute("SELECT value FROM meta WHERE key = 'owner_id'").fetchone()
        return str(row[0])

    def put(self, slot: str, record: Record, transition: Transition | None) -> None:
        """Write a record, and its line of the journal if the state changed.

        Raises `StoreError` if it is not on disk afterwards.
        """
        with self._writing() as db:
            self._put_mark(db)
            db.execute(
                "INSERT OR REPLACE INTO instance VALUES (?, ?, ?, ?)",
                (
                    slot,
                    record.state.value,
                    record.launch_id,
                    msgspec.json.encode(record),
                ),
            )
            if transition is not None:
                db.execute(
                    "INSERT INTO journal VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                    msgspec.structs.astuple(transition),
                )
                db.execute(
                    "DELETE FROM journal WHERE id <= (SELECT max(id) FROM journal) - ?",
                    (_JOURNAL_ROWS,),
                )

    def mark(self) -> Mark | None:
        """Return the last mark of a clock; None if there is none that can be read."""
        query = "SELECT value FROM meta WHERE key = 'mark'"
        row = self._db.execute(query).fetchone()
        try:
            return msgspec.json.decode(row[0], type=Mark) if row else None
        except msgspec.MsgspecError:
            return None

    def mark_with(self, clock: Marking) -> None:
        """Write a mark of this clock now, and with each record from now on."""
        self._clock = clock
        self.put_mark()

    def put_mark(self) -> None:
        """Write a mark of the clock; without a disk the one before has to do."""
        with contextlib.suppress(StoreError), self._writing() as db:
            self._put_mark(db)

    def _put_mark(self, db: sqlite3.Connection) -> None:
        """Write by what a later process compares its moments with these."""
        if self._clock is not None:
            mark = msgspec.json.encode(self._clock.mark()).decode()
            db.execute("INSERT OR REPLACE INTO meta VALUES ('mark', ?)", (mark,))

    def get(self, slot: str) -> Record | None:
        """Return the record of a slot, if it ever had one."""
        row = self._db.execute(
            "SELECT record FROM instance WHERE slot = ?", (slot,)
        ).fetchone()
        return msgspec.json.decode(row[0], type=Record) if row else None

    def launch_ids(self) -> set[LaunchId]:
        """Return every launch that a record names."""
        rows = self._db.execute(
            "SELECT launch_id FROM instance WHERE launch_id IS NOT NULL"
        )
        return {LaunchId(row[0]) for row in rows}

    def forget(self, launch_ids: Collection[LaunchId]) -> None:
        """Let no record name launches that were seen to be gone."""
        rows = self._db.execute("SELECT slot, launch_id FROM instance").fetchall()
        for slot, launch_id in rows:
            if launch_id in launch_ids:
                self.put(slot, without_launch(self.get(slot) or Record()), None)

    def journal(self, limit: int = 50) -> list[Transition]:
        """Return the newest transitions, newest first."""
        rows = self._db.execute(
            "SELECT at, slot, launch_id, before, after, event, fault, report"
            " FROM journal ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [Transition(*row) for row in rows]

    def place(self, name: str) -> Place:
        """Return what is known of the models of one place."""
        return Place(self._db, self._writing, name)

    def add_launch(self, offer: str, duration_s: float) -> None:
        """Remember how long a launch took from wake to ready."""
        with self._writing() as db:
            db.execute("INSERT INTO launch VALUES (NULL, ?, ?)", (offer, duration_s))
            db.execute(
                "DELETE FROM launch WHERE offer = ? AND id NOT IN"
                " (SELECT id FROM launch WHERE offer = ? ORDER BY id DESC LIMIT ?)",
                (offer, offer, _LAUNCH_ROWS),
            )

    def launch_durations_s(self, offer: str) -> list[float]:
        """Return how long the last launches of an offer took."""
        rows = self._db.execute(
            "SELECT duration_s FROM launch WHERE offer = ?", (offer,)
        )
        return [float(row[0]) for row in rows]

    def sticky_models(self) -> list[StickyModel]:
        """Return every model that is remembered."""
        rows = self._db.execute("SELECT model FROM sticky_model ORDER BY name")
        return [msgspec.json.decode(row[0], type=StickyModel) for row in rows]

    def put_sticky(self, model: StickyModel) -> None:
        """Remember a model."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO sticky_model VALUES (?, ?)",
                (model.name, msgspec.json.encode(model)),
            )

    def drop_sticky(self, name: str) -> None:
        """Forget a model."""
        with self._writing() as db:
            db.execute("DELETE FROM sticky_model WHERE name = ?", (name,))

    def notes_of(self, backend: str) -> "BackendNotes":
        """Return the notes of one backend."""
        return BackendNotes(self._db, self._writing, backend)

    def claim(self, backend: str, *, costs: bool) -> None:
        """Let the records belong to a backend; ``costs``: its instances outlive us.

        Raises `StartupError` if a record names an instance of another backend: it
        would be forgotten, and nobody would stop it.
        """
        query = "SELECT value FROM meta WHERE key = 'backend'"
        row = self._db.execute(query).fetchone()
        launches = self.launch_ids()
        if row is not None and row[0] != backend and launches:
            raise StartupError(
                f"there is still an instance of the backend {row[0]!r}"
                f" ({', '.join(sorted(launches))}); run `ollama-proxy stop` with"
                f" OLLAMA_PROXY_BACKEND={row[0]} and its settings first, or set"
                " OLLAMA_PROXY_STATE_DIR to another folder"
            )
        with self._writing() as db:
            db.execute("DELETE FROM meta WHERE key = 'backend'")
            if costs:
                db.execute("INSERT INTO meta VALUES ('backend', ?)", (backend,))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._db:
                yield self._db
        except (sqlite3.Error, ValueError) as error:
            self.problem = (
                f"the state can't be written: {error}; no instance is started until it"
                f" can: make room in {str(self._folder)!r}, or set"
                " OLLAMA_PROXY_STATE_DIR to another folder"
            )
            raise StoreError(self.problem) from error
        self.problem = None


class BackendNotes:
    """What one backend has to know of its launches after a crash."""

    def __init__(
        self,
        db: sqlite3.Connection,
        writing: Callable[[], AbstractContextManager[sqlite3.Connection]],
        backend: str,
    ) -> None:
        self._db = db
        self._writing = writing
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
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO backend_note VALUES (?, ?, ?)", row)

    def drop_note(self, launch_id: LaunchId) -> None:
        """Forget a note."""
        row = (self._backend, launch_id)
        with self._writing() as db:
            db.execute("DELETE FROM backend_note WHERE backend = ? AND name = ?", row)


def _lock_folder(folder: Path) -> FileLock:
    """Take the folder for this process, or say who has it."""
    if is_without_home(folder):
        raise StartupError(
            "OLLAMA_PROXY_STATE_DIR: this user has no home folder to keep the state in;"
            " set it to a folder that lasts"
        )
    pid_file = folder / "pid"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
        pid_file.write_text(f"{os.getpid()}\n", "ascii")
    except Timeout:
        holder = pid_file.read_text("ascii").strip() if pid_file.exists() else "unknown"
        raise StartupError(
            f"the state folder {str(folder)!r} is in use by process {holder}; "
            "stop it, or set OLLAMA_PROXY_STATE_DIR to another folder"
        ) from None
    except OSError as error:
        raise StartupError(
            f"the state folder {str(folder)!r} can't be written ({error.strerror}); "
            "set OLLAMA_PROXY_STATE_DIR to a folder that can"
        ) from error
    return lock


def _open_database(path: Path) -> sqlite3.Connection:
    """Open the file and bring its schema up to date, or say why not."""
    try:
        db = sqlite3.connect(path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        _migrate(db, path)
    except sqlite3.Error as error:
        raise StartupError(
            f"the state file {str(path)!r} can't be used: {error}"
        ) from error
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        db.close()
        raise StartupError(
            f"the state file {str(path)!r} has schema {version}, this version knows "
            f"{len(MIGRATIONS)}; run the newer ollama-proxy that wrote it"
        )
    for number in range(version, len(MIGRATIONS)):
        db.executescript(
            f"BEGIN; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
        )
