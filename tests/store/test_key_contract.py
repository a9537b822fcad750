"""What every store does with keys and the audit: the ports, held to their words."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Key, KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.store.ports import AUDIT_LINES
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.store.rig import Rig

LINE = AuditLine(1.0, "root", "127.0.0.1", "key add", "laptop", "chat, read")
ADMIN = Rights(routes=frozenset({RouteClass.ADMIN}))
LAPTOP = Key(
    KeyId("0123abcd"),
    "laptop",
    digest=bytes(range(32)),
    rights=Rights(
        models=("llama3*", "qwen3:*"),
        routes=frozenset({RouteClass.CHAT, RouteClass.JOBS}),
        rpm=60,
        parallel=5,
        tokens_per_day=1000,
        budget_day=5_000_000,
        budget_month=60_000_000,
        may_wake=False,
        max_hold_s=300.0,
        priority=-3,
    ),
    made_at=1763000001.5,
    expires_at=1765592001.5,
    is_disabled=True,
    former_digest=bytes(32),
    former_until=1763003601.5,
)
ROOT = Key(KeyId("89abcdef"), "root", digest=bytes(32), rights=ADMIN)


def test_a_new_store_has_no_keys_and_needs_none(rig: Rig) -> None:
    assert rig.store.all_keys() == []
    assert rig.store.audit() == []
    assert not rig.store.are_keys_needed()


def test_a_key_is_read_back_as_it_was_by_name_with_its_line(rig: Rig) -> None:
    rig.store.put_key(ROOT, LINE)
    rig.store.put_key(LAPTOP, LINE)

    assert rig.again().all_keys() == [LAPTOP, ROOT]
    assert rig.store.audit() == [LINE, LINE]


def test_a_key_replaces_the_one_with_its_id(rig: Rig) -> None:
    rig.store.put_key(LAPTOP, LINE)
    changed = Key(LAPTOP.id, "laptop", digest=bytes(32))
    rig.store.put_key(changed, LINE)

    assert rig.again().all_keys() == [changed]


def test_a_key_for_clients_makes_keys_needed_for_ever(rig: Rig) -> None:
    rig.store.put_key(ROOT, LINE)
    assert not rig.again().are_keys_needed()

    rig.store.put_key(LAPTOP, LINE)
    rig.store.drop_key(LAPTOP.id, LINE)

    assert rig.store.all_keys() == [ROOT]
    assert rig.again().are_keys_needed()


def test_a_file_of_keys_makes_keys_needed_for_ever(rig: Rig) -> None:
    rig.store.need_keys()
    rig.store.need_keys()

    assert rig.again().are_keys_needed()
    assert rig.store.all_keys() == []


def test_the_audit_is_newest_first_and_bounded(rig: Rig) -> None:
    for number in range(AUDIT_LINES + 2):
        rig.store.add_audit(AuditLine(float(number), "", "::1", "stop"))
    lines = rig.again().audit(AUDIT_LINES * 2)

    assert len(lines) == AUDIT_LINES
    assert lines[0] == AuditLine(AUDIT_LINES + 1.0, "", "::1", "stop")
    assert [line.at for line in rig.store.audit(2)] == [1001.0, 1000.0]


def test_a_key_that_cannot_be_written_leaves_no_line(tmp_path: Path) -> None:
    """Two keys of one name: the second row breaks a rule of the table."""
    with closing(SqliteStore(tmp_path)) as store:
        store.put_key(LAPTOP, LINE)
        with pytest.raises(StoreError):
            store.put_key(Key(KeyId("ffffffff"), "laptop", digest=bytes(32)), LINE)

        assert store.all_keys() == [LAPTOP]
        assert store.audit() == [LINE]


def test_a_row_that_cannot_be_read_is_no_key_any_more(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        store.put_key(LAPTOP, LINE)
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as db, db:
        db.execute("UPDATE key SET key = x'7b'")
    with closing(SqliteStore(tmp_path)) as store:
        assert store.all_keys() == []
        assert "the key 'laptop' can't be read" in store.damage[0]
        assert store.are_keys_needed()


def test_a_damaged_file_lets_nobody_in_without_a_key(tmp_path: Path) -> None:
    """The mark is found in its bytes, when no table of it can be read."""
    with closing(SqliteStore(tmp_path)) as store:
        store.put_key(LAPTOP, LINE)
    path = tmp_path / "state.sqlite3"
    raw = path.read_bytes()
    path.write_bytes(b"\0" * 100 + raw[100:])
    with closing(SqliteStore(tmp_path)) as store:
        assert store.damage
        assert store.are_keys_needed()


def lose(path: Path, how: str) -> None:
    """Lose the state file, or all that it has."""
    match how:
        case "removed":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case _:
            path.write_bytes(bytes(range(256)) * 64)


@pytest.mark.parametrize("how", ["removed", "empty", "garbage"])
@pytest.mark.parametrize("by_file", [False, True], ids=["a key", "a file of keys"])
def test_a_lost_file_lets_nobody_in_without_a_key(
    tmp_path: Path, how: str, by_file: bool
) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        store.need_keys() if by_file else store.put_key(LAPTOP, LINE)
    lose(tmp_path / "state.sqlite3", how)
    with closing(SqliteStore(tmp_path)) as store:
        assert store.all_keys() == []
        assert store.are_keys_needed()


def test_a_lost_file_that_needed_no_keys_needs_none(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        store.put_key(ROOT, LINE)
    lose(tmp_path / "state.sqlite3", "garbage")
    with closing(SqliteStore(tmp_path)) as store:
        assert not store.are_keys_needed()


def test_the_digest_of_a_key_stands_in_no_words_about_it() -> None:
    assert "digest" not in repr(LAPTOP)
