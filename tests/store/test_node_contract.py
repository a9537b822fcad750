"""What every store does with the nodes of the hub: the port, held to its words."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.nodes.remembered import RememberedNode
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.store.rig import Rig

BOX = RememberedNode(
    "box", '{"node_id":"box"}', "10.0.0.5", True, True, "b" * 32, ("a" * 32, "x")
)
ATTIC = RememberedNode("attic", peer="10.0.0.6")


def test_a_new_store_knows_no_nodes(rig: Rig) -> None:
    assert rig.store.remembered_nodes() == []


def test_nodes_are_read_back_as_they_were_by_name(rig: Rig) -> None:
    rig.store.put_nodes([BOX, ATTIC])

    assert rig.again().remembered_nodes() == [ATTIC, BOX]


def test_a_node_replaces_the_one_of_its_name_and_others_are_forgotten(rig: Rig) -> None:
    rig.store.put_nodes([BOX, ATTIC])
    changed = RememberedNode("box", is_drained=True)
    rig.store.put_nodes([changed], forgotten=["attic", "unknown"])

    assert rig.again().remembered_nodes() == [changed]


def test_a_node_that_can_not_be_read_is_dropped_and_told(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        store.put_nodes([BOX, ATTIC])
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as db, db:
        db.execute("UPDATE node SET node = 'x' WHERE id = 'box'")

    with closing(SqliteStore(tmp_path)) as store:
        assert store.remembered_nodes() == [ATTIC]
        assert "the node 'box' can't be read" in store.damage[0]


def test_a_node_that_is_not_written_is_an_error(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.close()

    with pytest.raises(StoreError, match="can't be written"):
        store.put_nodes([BOX])
