"""What has to outlive the process: one SQLite file in the state folder.

It holds the owner id, the record of every slot (what is intended and known of
its instance), a journal of transitions, the catalogues, how long launches took, and
the models that clients put there. Writes are synchronous and few: a record is on
disk before its cloud is called, or the call is not made.
"""

import contextlib
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Marking, SystemClock
from ollama_proxy.base.errors import StartupError, StoreError
from ollama_proxy.base.moments import Mark
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.launch_limit import without_launch
from ollama_proxy.core.lifecycle.record import LaunchId, Record
from ollama_proxy.core.restore_plan import StickyModel
from ollama_proxy.store.journal_lines import add_line
from ollama_proxy.store.places import Place
from ollama_proxy.store.stage_history import StageHistory
from ollama_proxy.store.state_file import Opened, keep_copy, open_state
from ollama_proxy.store.state_folder import (
    STATE_FILE,
    file_mode,
    make_private,
    read_owner,
    take_folder,
    write_owner,
)
from ollama_proxy.store.state_repair import (
    doomed,
    launches_in,
    launches_under_way,
    read_record,
)

SLOT: Final = "default-0"
"""The slot of the one instance that there is."""

_LAUNCH_ROWS = 20


class Store:
    """The state of one deployment, owned by one process at a time.

    ``problem``: why the last write failed, until one succeeds again. ``damage``: what
    could not be read of what an earlier process left, in words.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._date = SystemClock().wall
        self._path = folder / STATE_FILE
        self._copy: Path | None = None
        self._log = structlog.get_logger()
        self.problem: str | None = None
        self._clock: Marking | None = None
        self.damage: list[str] = []
        self._lock = take_folder(folder)
        try:
            opened = self._open()
        except BaseException:
            self._lock.release()
            raise
        self._db = opened.db
        try:
            self._mend(opened)
            self.owner_id = self._owner_id()
        except BaseException:
            self.close()
            raise

    def _open(self) -> Opened:
        try:
            make_private(self._path, file_mode(self._folder))
        except OSError as error:
            raise StartupError(
                f"the state file {str(self._path)!r} can't be written"
                f" ({error.strerror}); make room and see to its rights, or set"
                " OLLAMA_PROXY_STATE_DIR to another folder"
            ) from error
        return open_state(self._path, self._date())

    def close(self) -> None:
        """Close the file and let another process have the folder."""
        self._db.close()
        self._lock.release()

    def _mend(self, opened: Opened) -> None:
        """Put what is there into the place of what can't be read any more."""
        if opened.damage:
            self._tell(f"the state file was damaged: {opened.damage}")
            self._recall(opened.launches)
        rows = self._db.execute("SELECT slot, launch_id, record FROM instance")
        for slot, launch_id, raw in rows.fetchall():
            self._mend_record(str(slot), launch_id, raw)

    def _mend_record(self, slot: str, launch_id: object, raw: object) -> None:
        named = LaunchId(launch_id) if isinstance(launch_id, str) else None
        try:
            record = read_record(raw)
            if record.launch_id == named or named is None:
                return
            why = f"it names the launch {record.launch_id}"
        except ValueError as error:
            why = str(error)
            if named is None and isinstance(raw, bytes):
                named = next(iter(launches_in(raw)), None)
        known = named or "none"
        what = f"the record of {slot!r} can't be read ({why}); its launch: {known}"
        self._tell(f"{what}; {self._kept_copy()}")
        with contextlib.suppress(StoreError):
            self.put(slot, doomed(named, self._date()), None)

    def _recall(self, found: Sequence[str]) -> None:
        """Remember the launches of a file that had to be made anew.

        Each slot whose record is gone gets the launch that the journal leaves open,
        else one whose record stood in the bytes of the file.
        """
        slots = {row[0] for row in self._db.execute("SELECT slot FROM instance")}
        journal = self._db.execute(
            "SELECT slot, launch_id, after FROM journal ORDER BY id"
        ).fetchall()
        recalled = launches_under_way(journal)
        known = {row[1] for row in journal} | self.launch_ids()
        unknown = [LaunchId(name) for name in found if name not in known]
        if unknown and not slots and not recalled:
            recalled = {SLOT: unknown.pop()}
        for slot, launch_id in recalled.items():
            if slot not in slots:
                self._tell(f"launch {launch_id} may have an instance: it is stopped")
                self.put(slot, doomed(launch_id, self._date()), None)
        if unknown:
            names = ", ".join(unknown)
            self._tell(
                f"the damaged file names launches that may have ended: {names}; the"
                " sweep stops what is still there"
            )

    def _tell(self, what: str) -> None:
        """Log damage, and keep what was found for `check`."""
        self.damage.append(what)
        self._log.warning(log.STATE_DAMAGED, reason=what)

    def _kept_copy(self) -> str:
        """Keep a copy of the file, once per process; return where, in words."""
        if self._copy is None:
            self._copy = keep_copy(self._path, self._date())
        if self._copy is None:
            return "there is no room for a copy"
        return f"the file as it was is {str(self._copy)!r}"

    def _discard(self, what: str, statement: str, row: tuple[object, ...]) -> None:
        """Remove what can't be read; a copy of the file is kept, once per process."""
        self._tell(f"{what}; {self._kept_copy()}")
        if self._copy is not None:
            with contextlib.suppress(StoreError), self._writing() as db:
                db.execute(statement, row)

    def _owner_id(self) -> str:
        """Return the id of this deployment, drawn when the folder was new.

        It also stands in a file of its own: without it nobody finds the instances.
        """
        query = "SELECT value FROM meta WHERE key = 'owner_id'"
        row = self._db.execute(query).fetchone()
        kept = read_owner(self._folder)
        owner_id = str(row[0]) if row else kept or secrets.token_hex(8)
        if row is None:
            with self._writing() as db:
                db.execute("INSERT INTO meta VALUES ('owner_id', ?)", (owner_id,))
        if kept != owner_id:
            write_owner(self._folder, owner_id)
        return owner_id

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
                add_line(db, transition)

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
        """Return the record of a slot, if it ever had one.

        One that can't be read, nor be written anew on a full disk, is to be stopped.
        """
        query = "SELECT launch_id, record FROM instance WHERE slot = ?"
        row = self._db.execute(query, (slot,)).fetchone()
        if row is None:
            return None
        try:
            return read_record(row[1])
        except ValueError:
            return doomed(LaunchId(row[0]) if row[0] else None, self._date())

    def launch_ids(self) -> set[LaunchId]:
        """Return every launch that a record names. Raises `StoreError`."""
        with self._reading() as db:
            rows = db.execute(
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
        """Return the newest transitions, newest first. Raises `StoreError`."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT at, slot, launch_id, before, after, event, fault, report"
                " FROM journal ORDER BY id DESC LIMIT ?",
                (limit,),
            )
            return [Transition(*row) for row in rows]

    def add_line(self, line: Transition) -> None:
        """Write a line of the journal that changes no record. Raises `StoreError`."""
        with self._writing() as db:
            add_line(db, line)

    def take_over(self, owner_id: str) -> None:
        """Go on as another deployment: nothing of our own may be left.

        The file beside is written first: what it says counts where the row is lost.
        """
        write_owner(self._folder, owner_id)
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO meta VALUES ('owner_id', ?)", (owner_id,)
            )
        self.owner_id = owner_id

    def remembers(self, launch_id: LaunchId) -> bool:
        """Tell whether a launch is on record, or was: each is written down first.

        Where the file was damaged nobody can tell, and none counts as another's.
        """
        if self.damage:
            return True
        query = (
            "SELECT 1 FROM journal WHERE launch_id = ?"
            " UNION SELECT 1 FROM instance WHERE launch_id = ?"
        )
        with self._reading() as db:
            return db.execute(query, (launch_id, launch_id)).fetchone() is not None

    def place(self, name: str) -> Place:
        """Return what is known of the models of one place."""
        return Place(self._db, self._writing, name, self._discard)

    @property
    def stages(self) -> StageHistory:
        """What is known of the stages of launches."""
        return StageHistory(self._db, self._writing)

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
            "SELECT duration_s FROM launch WHERE offer = ? AND duration_s >= 0"
            " AND typeof(duration_s) = 'real'",
            (offer,),
        )
        return [float(row[0]) for row in rows]

    def sticky_models(self) -> list[StickyModel]:
        """Return every model that is remembered."""
        found = []
        rows = self._db.execute("SELECT name, model FROM sticky_model ORDER BY name")
        for name, raw in rows.fetchall():
            try:
                found.append(msgspec.json.decode(raw, type=StickyModel))
            except (ValueError, TypeError) as error:
                self._discard(
                    f"what is remembered of the model {name!r} can't be read ({error})",
                    "DELETE FROM sticky_model WHERE name = ?",
                    (name,),
                )
        return found

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
        if (row is not None and row[0]) == (costs and backend):
            return  # a disk that is full needs no write
        with self._writing() as db:
            db.execute("DELETE FROM meta WHERE key = 'backend'")
            if costs:
                db.execute("INSERT INTO meta VALUES ('backend', ?)", (backend,))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as error:
            raise StoreError(
                f"the state can't be read: {error}; start the proxy anew, which mends"
                f" {str(self._path)!r}"
            ) from error

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
