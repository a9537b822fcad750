"""Open the SQLite file of the state; replace a damaged one.

A damaged file is set aside. What can be read of it is copied into a new file, row by
row, from both ends of each table, because a page in the middle may be unreadable.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ollama_proxy.base.errors import StartupError
from ollama_proxy.store.sqlite.salvage import (
    are_keys_needed_in,
    backend_in,
    launches_in,
    name_of_copy,
    offer_in,
    owner_in,
)
from ollama_proxy.store.sqlite.schema import (
    NAME_OFFERS,
    NEED_KEYS,
    columns_of,
    expected_columns,
    migrate,
)

_COPIES = 5
_SCANNED_BYTES = 64 * 1024 * 1024
_DAMAGED = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SHORT_READ = sqlite3.SQLITE_IOERR_SHORT_READ  # the file was truncated
_KEPT_BESIDE = ("-wal", "-shm")
_FAULTS = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged file raises: SQLite's words may name a table whose name is damaged."""


@dataclass(slots=True)
class Opened:
    """Holds an open state file, and a description of its damage, if any.

    ``launches``: found in its bytes but in no row, with the offer of each, empty if
    unknown; at most one of them may still exist.
    """

    db: sqlite3.Connection
    damage: str = ""
    launches: dict[str, str] = field(default_factory=dict)


def open_state(path: Path, now: float) -> Opened:
    """Open the file and bring its schema up to date, even if it is damaged.

    Raises `StartupError` if it can't be opened, or was written by a later version.
    """
    try:
        db = _connect(path)
        try:
            migrate(db, path)
            damage = _damage_of(db)
        except BaseException:
            db.close()
            raise
        if not damage:
            return Opened(db)
        db.close()
    except _FAULTS as error:
        if not _is_damage(error):
            raise _unusable(path, error) from error
        damage = str(error)
    try:
        return _made_anew(path, damage, now)
    except (OSError, *_FAULTS) as error:
        raise _unusable(path, error) from error


def keep_copy(path: Path, now: float) -> Path | None:
    """Copy a file that is in use, with what belongs to it; None if it can't be."""
    copy = path.with_name(name_of_copy(path.name, now))
    try:
        for end in ("", *_KEPT_BESIDE[:1]):
            source = path.with_name(path.name + end)
            if source.exists():
                shutil.copy2(source, copy.with_name(copy.name + end))
    except OSError:
        return None
    _drop_old_copies(path)
    return copy


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file; on a full disk without the file that processes share."""
    db = sqlite3.connect(path)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except UnicodeDecodeError:
        db.close()
        raise
    except sqlite3.OperationalError as error:
        db.close()
        if _is_damage(error) or not path.exists() or not path.stat().st_size:
            raise
        db = sqlite3.connect(path)
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
    # FULL syncs the WAL at each commit. With NORMAL, a power cut could lose a launch
    # whose cloud is called a moment later.
    db.execute("PRAGMA synchronous = FULL")
    return db


def _is_damage(error: Exception) -> bool:
    """Tell a damaged file from a machine that does not let us read it."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF in _DAMAGED or code == _SHORT_READ)


def _unusable(path: Path, error: Exception) -> StartupError:
    return StartupError(
        f"the state file {str(path)!r} can't be used: {error}; make room and see to its"
        " rights, or set OLLAMA_PROXY_STATE_DIR to another folder"
    )


def _damage_of(db: sqlite3.Connection) -> str:
    """Return the damage of an open file, in words; "" if there is none."""
    said = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if said != "ok":
        return str(said).splitlines()[-1]
    there = columns_of(db)
    for table, columns in expected_columns().items():
        if table not in there:
            return f"the table {table!r} is missing"
        if lacking := [name for name in columns if name not in there[table]]:
            return f"the table {table!r} has no {lacking[0]!r}"
    return ""


def _made_anew(path: Path, damage: str, now: float) -> Opened:
    """Set the file aside and make a new one of what can be read."""
    copy = path.with_name(name_of_copy(path.name, now))
    moved = [end for end in ("", *_KEPT_BESIDE) if _rename(path, copy, end)]
    try:
        db = _connect(path)
        try:
            migrate(db, path)
            lost = _copy_rows(copy, db)
            db.executescript(f"BEGIN; {NAME_OFFERS} COMMIT;")  # it may be older
            launches = _fill_in(db, copy)
        except BaseException:
            db.close()
            raise
    except BaseException:
        for end in moved:
            _rename(copy, path, end)
        raise
    _drop_old_copies(path)
    told = f"{damage}; it was made anew, the damaged file is {str(copy)!r}"
    if lost:
        told += f"; not all could be read of: {', '.join(lost)}"
    return Opened(db, told, launches)


def _rename(source: Path, target: Path, end: str) -> bool:
    before = source.with_name(source.name + end)
    if not before.exists():
        return False
    before.replace(target.with_name(target.name + end))
    return True


def _copy_rows(copy: Path, db: sqlite3.Connection) -> list[str]:
    """Take over every row that can be read; return the tables that lack some."""
    lost: list[str] = []
    with contextlib.closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as old:
        try:
            there = columns_of(old)
        except _FAULTS:
            return ["everything"]
        with db:
            for table, columns in columns_of(db).items():
                common = [name for name in columns if name in there.get(table, ())]
                if not common:
                    lost.append(table)
                    continue
                if not _copy_table(old, db, table, common):
                    lost.append(table)
    return lost


def _copy_table(
    old: sqlite3.Connection, db: sqlite3.Connection, table: str, columns: list[str]
) -> bool:
    """Take over the rows of a table; return whether all could be read."""
    names, marks = ", ".join(columns), ", ".join("?" for _ in columns)
    query = f"SELECT {names} FROM {table}"  # noqa: S608 - names of our schema
    insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
    for order in ("", " ORDER BY rowid DESC"):
        try:
            for row in _rows(old, query + order):
                with contextlib.suppress(sqlite3.IntegrityError):
                    db.execute(insert, row)
        except _FAULTS:
            continue
        return True
    return False


def _rows(db: sqlite3.Connection, query: str) -> Iterator[tuple[object, ...]]:
    cursor = db.execute(query)
    while (row := cursor.fetchone()) is not None:
        yield row


def _fill_in(db: sqlite3.Connection, copy: Path) -> dict[str, str]:
    """Fill in missing rows from the bytes of the file; return its launches."""
    raw = b""
    for end in ("", "-wal"):
        with contextlib.suppress(OSError), Path(f"{copy}{end}").open("rb") as file:
            raw += file.read(_SCANNED_BYTES)
    with db:
        if (owner := owner_in(raw)) is not None:
            db.execute("INSERT OR IGNORE INTO meta VALUES ('owner_id', ?)", (owner,))
        if are_keys_needed_in(raw):  # without it everybody would be let in
            db.execute(NEED_KEYS)
    former = backend_in(raw) or ""
    return {
        str(launch_id): offer_in(raw, launch_id) or former
        for launch_id in launches_in(raw)
    }


def _drop_old_copies(path: Path) -> None:
    copies = sorted(path.parent.glob(f"{path.name}.damaged-*Z"))
    for copy in copies[:-_COPIES]:
        for end in ("", *_KEPT_BESIDE):
            with contextlib.suppress(OSError):
                copy.with_name(copy.name + end).unlink()
