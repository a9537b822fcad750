"""Bring the tables of a state file up to date: one script per version of them."""

import contextlib
import functools
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ollama_proxy.base.errors import StartupError

NAME_OFFERS: Final = """
    INSERT OR IGNORE INTO offer
        SELECT value, value, 1, x'7b7d' FROM meta WHERE key = 'backend';
    UPDATE instance SET slot = 'default/' || substr(slot, 9) || '/' || coalesce(
        (SELECT value FROM meta WHERE key = 'backend'), '')
        WHERE slot LIKE 'default-%';
    UPDATE journal SET slot = 'default/' || substr(slot, 9) || '/' || coalesce(
        (SELECT value FROM meta WHERE key = 'backend'), '')
        WHERE slot LIKE 'default-%';
    DELETE FROM meta WHERE key = 'backend';
"""
"""Assigns the slots of earlier versions to the offer of their one backend.

A free backend was not recorded: the first offer that opens the file gets its slots.
"""

NEED_KEYS: Final = "INSERT OR IGNORE INTO meta VALUES ('keys_needed', 'yes')"
"""Writes the mark that requests need a key; it is never removed."""

NODE_KEY_MADE: Final = "INSERT OR IGNORE INTO meta VALUES ('node_key_made', 'yes')"
"""Writes the mark that there was a key of a node; it is never removed."""

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
    # The former single catalogue may belong to any backend, so it is dropped.
    """
    CREATE TABLE place (
        name TEXT PRIMARY KEY, written INTEGER NOT NULL, contents BLOB, lessons BLOB
    );
    DROP TABLE catalogue;
    """,
    "ALTER TABLE journal ADD COLUMN report TEXT;",
    """
    CREATE TABLE launch_stages (
        id INTEGER PRIMARY KEY, offer TEXT NOT NULL, stages BLOB NOT NULL
    );
    """,
    """
    CREATE TABLE offer (
        name TEXT PRIMARY KEY, backend TEXT NOT NULL, costs INTEGER NOT NULL,
        spec BLOB NOT NULL
    );
    """
    + NAME_OFFERS,
    """
    CREATE TABLE key (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, key BLOB NOT NULL
    );
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, caller TEXT NOT NULL,
        address TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL,
        detail TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE usage (
        day TEXT NOT NULL, key_id TEXT NOT NULL, key_name TEXT NOT NULL,
        model TEXT NOT NULL, requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL,
        seconds REAL NOT NULL, refused INTEGER NOT NULL,
        PRIMARY KEY (day, key_id, model)
    );
    CREATE INDEX usage_of_key ON usage (key_id, day);
    """,
    """
    CREATE TABLE commitment (
        key TEXT, kind TEXT, period TEXT, amount INTEGER NOT NULL,
        PRIMARY KEY (key, kind, period)
    );
    """,
    """
    CREATE TABLE node_key (id TEXT PRIMARY KEY, key BLOB NOT NULL);
    CREATE TABLE join_token (id TEXT PRIMARY KEY, token BLOB NOT NULL);
    """,
    "CREATE TABLE node (id TEXT PRIMARY KEY, node BLOB NOT NULL);",
)
"""One script per version of the schema; the position is the version before it."""


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Run the scripts that a file lacks, all of them or none.

    Raises `StartupError` for a later version.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StartupError(
            f"the state file {str(path)!r} has schema {version}, this version knows "
            f"{len(MIGRATIONS)}; run the newer ollama-proxy that wrote it"
        )
    if version < len(MIGRATIONS):
        # One commit, for each waits for the disk: a script each took a new file 0.1 s.
        lacking = " ".join(MIGRATIONS[version:])
        db.executescript(
            f"BEGIN; {lacking} PRAGMA user_version = {len(MIGRATIONS)}; COMMIT;"
        )


def columns_of(db: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the columns of each table."""
    names = db.execute(
        "SELECT name FROM sqlite_master"
        " WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return {
        name: [row[1] for row in db.execute(f'PRAGMA table_info("{name}")')]
        for (name,) in names
    }


@functools.cache
def expected_columns() -> Mapping[str, list[str]]:
    """Return the columns of each table as the newest schema has them."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        for script in MIGRATIONS:
            db.executescript(script)
        return columns_of(db)
