import contextlib
import sqlite3
from pathlib import Path

import pytest

from ollama_proxy.store.sqlite.schema import (
    MIGRATIONS,
    columns_of,
    expected_columns,
    migrate,
)

PATH = Path("state.sqlite3")


@pytest.mark.parametrize("version", [0, 1, len(MIGRATIONS) - 1])
def test_all_that_a_file_lacks_is_written_by_one_commit(version: int) -> None:
    said: list[str] = []
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(" ".join(MIGRATIONS[:version]))
        db.execute(f"PRAGMA user_version = {version}")
        db.set_trace_callback(said.append)

        migrate(db, PATH)

        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert columns_of(db) == expected_columns()
    assert len([one for one in said if "COMMIT" in one]) == 1


def test_a_file_that_lacks_nothing_is_not_written() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        migrate(db, PATH)
        said: list[str] = []
        db.set_trace_callback(said.append)

        migrate(db, PATH)

    assert said == ["PRAGMA user_version"]


def test_a_script_that_fails_leaves_the_file_as_it_was() -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.executescript("CREATE TABLE node (id TEXT);")  # in the way of the last one

        with pytest.raises(sqlite3.OperationalError, match="node already exists"):
            migrate(db, PATH)
        db.rollback()

        assert db.execute("PRAGMA user_version").fetchone() == (0,)
        assert list(columns_of(db)) == ["node"]
