"""What every store does with keys of nodes and join tokens: the port, held to it."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.nodes.node_keys import JoinToken, NodeKey, NodeKeyId
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.store.rig import Rig

LINE = AuditLine(1.0, "root", "127.0.0.1", "node-token", "0123abcd")
KEY = NodeKey(NodeKeyId("0123456789abcdef"), "box ä", bytes(range(32)), 1763000001.5)
OTHER = NodeKey(NodeKeyId("f" * 16), "other", bytes(32), 5.0, is_used=True)
TOKEN = JoinToken("0123abcd", bytes(range(32)), 1763000000.5, 1763003600.5)
USED = replace(TOKEN, used_by=KEY.id, request=bytes(32))


def test_a_new_store_has_none_and_never_had(rig: Rig) -> None:
    assert rig.store.all_node_keys() == []
    assert rig.store.join_tokens() == []
    assert not rig.store.was_node_key_made()


def test_a_token_is_read_back_as_it_was_with_its_line(rig: Rig) -> None:
    rig.store.put_join_token(TOKEN, LINE)
    assert rig.again().join_tokens() == [TOKEN]
    assert rig.store.audit() == [LINE]
    assert not rig.store.was_node_key_made()


def test_tokens_are_forgotten_and_no_others(rig: Rig) -> None:
    more = replace(TOKEN, id="89abcdef")
    last = replace(TOKEN, id="ffffffff")
    for token in (TOKEN, more, last):
        rig.store.put_join_token(token, LINE)
    rig.store.drop_join_tokens([TOKEN.id, "00000000"])
    assert rig.again().join_tokens() == [more, last]
    rig.store.drop_join_tokens([more.id], LINE)
    assert rig.again().join_tokens() == [last]
    assert len(rig.store.audit()) == 4


def test_a_joining_writes_token_and_key_and_forgets_what_they_replace(rig: Rig) -> None:
    rig.store.put_join_token(TOKEN, LINE)
    rig.store.put_node_key(OTHER)
    rig.store.join_node(USED, KEY, [OTHER.id], LINE)
    store = rig.again()
    assert store.join_tokens() == [USED]
    assert store.all_node_keys() == [KEY]
    assert store.was_node_key_made()
    assert len(store.audit()) == 2


def test_a_key_replaces_the_one_with_its_id(rig: Rig) -> None:
    rig.store.put_node_key(KEY)
    rig.store.put_node_key(replace(KEY, is_used=True))
    assert rig.again().all_node_keys() == [replace(KEY, is_used=True)]


def test_that_there_was_a_key_outlives_the_key(rig: Rig) -> None:
    rig.store.join_node(USED, KEY, [], LINE)
    rig.store.drop_node_key(KEY.id, LINE)
    assert rig.again().all_node_keys() == []
    assert rig.store.was_node_key_made()


def test_no_digest_is_shown(rig: Rig) -> None:
    rig.store.join_node(USED, KEY, [], LINE)
    shown = f"{rig.store.all_node_keys()} {rig.store.join_tokens()}"
    assert "digest" not in shown
    assert "x01" not in shown


def test_that_there_was_a_key_outlives_the_state_file(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        store.join_node(USED, KEY, [], LINE)
    (tmp_path / "state.sqlite3").unlink()
    with closing(SqliteStore(tmp_path)) as store:
        assert store.all_node_keys() == []
        assert store.was_node_key_made()


def test_a_lost_file_of_the_mark_is_restored(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        store.join_node(USED, KEY, [], LINE)
        mark = tmp_path / "node-key-made"
        mark.unlink()
        assert store.was_node_key_made()
        assert mark.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("table", ["node_key", "join_token"])
def test_what_cannot_be_read_is_not_taken_and_the_rest_is(
    table: str, tmp_path: Path
) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        store.join_node(USED, KEY, [], LINE)
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as db, db:
        db.execute(f"INSERT INTO {table} VALUES ('bad', x'7b')")
    with closing(SqliteStore(tmp_path)) as store:
        assert store.all_node_keys() == [KEY]
        assert store.join_tokens() == [USED]
        assert "not taken" in store.damage[0]
    with closing(SqliteStore(tmp_path)) as store:
        store.all_node_keys()
        store.join_tokens()
        assert store.damage == []


def test_a_joining_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        store.put_join_token(TOKEN, LINE)
        with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as db, db:
            db.execute(
                "CREATE TRIGGER full BEFORE INSERT ON node_key BEGIN"
                " SELECT RAISE(ABORT, 'full'); END"
            )
        with pytest.raises(StoreError):
            store.join_node(USED, KEY, [], LINE)
        assert store.join_tokens() == [TOKEN]
        assert not store.was_node_key_made()
