"""Keep what lasts of the nodes of the hub."""

from collections.abc import Collection

import msgspec

from ollama_proxy.core.nodes.remembered import RememberedNode
from ollama_proxy.store.sqlite.database import Table

_PUT = "INSERT OR REPLACE INTO node VALUES (?, ?)"
_DROP = "DELETE FROM node WHERE id = ?"


class SqliteNodes(Table):
    """Keeps one row a node."""

    def remembered_nodes(self) -> list[RememberedNode]:
        """Return every node, by name; an unreadable one is known by its next beat."""
        found = []
        rows = self._db.execute("SELECT id, node FROM node ORDER BY id").fetchall()
        for node_id, raw in rows:
            try:
                found.append(msgspec.json.decode(raw, type=RememberedNode))
            except (ValueError, TypeError) as error:
                self._db.discard(
                    f"the node {node_id!r} can't be read ({error}); a drain of it is"
                    " to be ordered again",
                    _DROP,
                    (node_id,),
                )
        return found

    def put_nodes(
        self, nodes: Collection[RememberedNode], forgotten: Collection[str] = ()
    ) -> None:
        """Write nodes and forget others, all or nothing. Raises `StoreError`."""
        with self._db.writing() as db:
            db.executemany(_DROP, [(node_id,) for node_id in forgotten])
            db.executemany(
                _PUT, [(node.node_id, msgspec.json.encode(node)) for node in nodes]
            )
