"""Keep keys of nodes and join tokens in memory: see `ollama_proxy.store.memory`."""

from collections.abc import Collection

from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.nodes.node_keys import JoinToken, NodeKey, NodeKeyId
from ollama_proxy.store.memory_keys import MemoryKeys


class MemoryNodeKeys(MemoryKeys):
    """Holds the keys of nodes and the tokens to join with, beside those of clients."""

    def __init__(self) -> None:
        super().__init__()
        self._node_keys: dict[NodeKeyId, NodeKey] = {}
        self._join_tokens: dict[str, JoinToken] = {}
        self._was_node_key_made = False

    def all_node_keys(self) -> list[NodeKey]:
        """Return every key of a node, by id."""
        return [self._node_keys[key_id] for key_id in sorted(self._node_keys)]

    def put_node_key(self, key: NodeKey) -> None:
        """Write a key in place of the one with its id."""
        self._node_keys[key.id] = key

    def drop_node_key(self, key_id: NodeKeyId, line: AuditLine) -> None:
        """Forget a key and write the line."""
        self._node_keys.pop(key_id, None)
        self.add_audit(line)

    def join_tokens(self) -> list[JoinToken]:
        """Return every join token that is kept, by id."""
        return [self._join_tokens[token_id] for token_id in sorted(self._join_tokens)]

    def put_join_token(self, token: JoinToken, line: AuditLine) -> None:
        """Write a token and its line of the audit."""
        self._join_tokens[token.id] = token
        self.add_audit(line)

    def drop_join_tokens(
        self, token_ids: Collection[str], line: AuditLine | None = None
    ) -> None:
        """Forget tokens and write the line, if any."""
        for token_id in token_ids:
            self._join_tokens.pop(token_id, None)
        if line is not None:
            self.add_audit(line)

    def join_node(
        self,
        token: JoinToken,
        key: NodeKey,
        replaced: Collection[NodeKeyId],
        line: AuditLine,
    ) -> None:
        """Write a used token and its key, and forget replaced ones."""
        self._join_tokens[token.id] = token
        for key_id in replaced:
            self._node_keys.pop(key_id, None)
        self._node_keys[key.id] = key
        self._was_node_key_made = True
        self.add_audit(line)

    def was_node_key_made(self) -> bool:
        """Tell whether there ever was a key of a node."""
        return self._was_node_key_made
