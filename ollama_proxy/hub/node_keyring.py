"""Find the node that sends a key, and let nodes join and leave."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.nodes.node_keys import (
    JoinToken,
    NodeKey,
    NodeKeyId,
    is_it,
    node_key_id_of,
)
from ollama_proxy.store.ports import NodeKeyStore


class NodeKeyring:
    """Holds every key of a node, by its id and by the node's name.

    A change is stored before it takes effect. A name has one key: the newest.
    """

    def __init__(self, store: NodeKeyStore) -> None:
        self._store = store
        self._by_id: dict[NodeKeyId, NodeKey] = {}
        self._by_node: dict[str, NodeKey] = {}
        self._on_ended: list[Callable[[NodeKey], None]] = []
        self._on_first: list[Callable[[], None]] = []
        for key in sorted(store.all_node_keys(), key=lambda key: key.made_at):
            self._hold(key)
        self._was_made = bool(self._by_id) or store.was_node_key_made()

    def __iter__(self) -> Iterator[NodeKey]:
        return iter(self._by_node.values())

    @property
    def was_key_made(self) -> bool:
        """Tell whether there ever was a key of a node."""
        return self._was_made

    def find(self, text: str) -> NodeKey | None:
        """Return the key that has this text; None if none has."""
        key_id = node_key_id_of(text)
        key = self._by_id.get(key_id) if key_id is not None else None
        return key if key is not None and is_it(text, key.digest) else None

    def by_id(self, key_id: NodeKeyId) -> NodeKey | None:
        """Return the key with this id."""
        return self._by_id.get(key_id)

    def of_node(self, node_id: str) -> NodeKey | None:
        """Return the key of the node with this name."""
        return self._by_node.get(node_id)

    def has(self, node_id: str) -> bool:
        """Tell whether a node of this name has joined, be it there or not."""
        return node_id in self._by_node

    def on_ended(self, callback: Callable[[NodeKey], None]) -> None:
        """Call back with each key that is no longer taken."""
        self._on_ended.append(callback)

    def on_first(self, callback: Callable[[], None]) -> None:
        """Call back when the first key of a node is taken."""
        self._on_first.append(callback)

    def join(self, token: JoinToken, key: NodeKey, line: AuditLine) -> None:
        """Store a key with the token that it was made with, then take it.

        An earlier key of that name ends. Raises `StoreError`, and changes nothing.
        """
        former = self._by_node.get(key.node_id)
        replaced = [former.id] if former is not None else []
        self._store.join_node(token, key, replaced, line)
        is_first, self._was_made = not self._was_made, True
        if former is not None:
            self._let_go(former)
        self._hold(key)
        for callback in self._on_first if is_first else ():
            callback()

    def note_use(self, key: NodeKey) -> None:
        """Remember that a node has its key, so the joining is not repeated.

        If it can't be stored the next use is noted instead.
        """
        if key.is_used or self._by_id.get(key.id) is not key:
            return
        used = replace(key, is_used=True)
        try:
            self._store.put_node_key(used)
        except StoreError as error:
            structlog.get_logger().warning(log.STORE_FAILED, reason=str(error))
            return
        self._hold(used)

    def remove(self, key: NodeKey, line: AuditLine) -> None:
        """Remove a key from the store, then take it no longer. Raises `StoreError`."""
        self._store.drop_node_key(key.id, line)
        self._let_go(key)

    def _hold(self, key: NodeKey) -> None:
        self._by_id[key.id] = self._by_node[key.node_id] = key

    def _let_go(self, key: NodeKey) -> None:
        self._by_id.pop(key.id, None)
        held = self._by_node.get(key.node_id)
        if held is not None and held.id == key.id:
            del self._by_node[key.node_id]
        for callback in self._on_ended:
            callback(key)
