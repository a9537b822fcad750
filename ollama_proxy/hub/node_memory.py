"""Remember nodes across restarts; written when something lasting changes, not per beat.

Nodes that join together are written together: 1 000 writes would take 16 s of disk.
"""

from collections.abc import Callable

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.nodes.remembered import RememberedNode
from ollama_proxy.store.ports import NodeStore


class NodeMemory:
    """Gathers which nodes have changed, and writes these at once with `flush`.

    ``remembered_of`` returns what lasts of a node now; None: the store forgets it.
    """

    def __init__(
        self, store: NodeStore, remembered_of: Callable[[str], RememberedNode | None]
    ) -> None:
        self._store, self._remembered_of = store, remembered_of
        self._changed: set[str] = set()
        self._written: set[str] = set()
        self._has_failed = False
        self._log = structlog.get_logger()

    def read(self) -> list[RememberedNode]:
        """Return what an earlier process knew."""
        found = self._store.remembered_nodes()
        self._written = {node.node_id for node in found}
        return found

    def note(self, node_id: str) -> None:
        """Write this node with the next flush."""
        self._changed.add(node_id)

    def flush(self) -> None:
        """Write what has changed; what can't be written is tried again next time."""
        if not self._changed:
            return
        try:
            self.write()
        except StoreError as error:
            if not self._has_failed:
                self._log.warning(log.STORE_FAILED, reason=str(error))
            self._has_failed = True
            self._forget_unwritten()

    def _forget_unwritten(self) -> None:
        """Keep no names of nodes that are gone and not written: any may be made up."""
        of_others = self._changed - self._written
        gone = {one for one in of_others if self._remembered_of(one) is None}
        self._changed -= gone

    def write(self) -> None:
        """Write what has changed. Raises `StoreError`."""
        found = {node_id: self._remembered_of(node_id) for node_id in self._changed}
        nodes = [one for one in found.values() if one is not None]
        forgotten = [node_id for node_id, one in found.items() if one is None]
        self._store.put_nodes(nodes, forgotten)
        self._written.difference_update(forgotten)
        self._written.update(node.node_id for node in nodes)
        self._changed.clear()
        self._has_failed = False
