"""Decide whose beats are taken: of nodes with a key, and of former agents."""

from collections.abc import Callable
from typing import Any

from ollama_proxy.core.access.facts import HeaderView
from ollama_proxy.core.nodes.beat import BeatError
from ollama_proxy.core.nodes.legacy_rule import LegacyRule
from ollama_proxy.core.nodes.node_keys import NodeKey, bearer_of
from ollama_proxy.hub.node_keyring import NodeKeyring
from ollama_proxy.hub.ports import Sender


class NodeAccess:
    """Knows the sender of a beat by its key, or by the rule for former agents.

    ``was_client_key_made``: tells whether there ever was a key for clients, or the
    settings demand keys.
    """

    def __init__(
        self,
        keyring: NodeKeyring,
        legacy: LegacyRule,
        was_client_key_made: Callable[[], bool],
    ) -> None:
        self._keyring = keyring
        self._legacy = legacy
        self._was_client_key_made = was_client_key_made

    @property
    def warning(self) -> str:
        """Return what people must know while beats without a key are taken; else ""."""
        return self._legacy.warning(was_key_made=self._was_made)

    def body(self) -> dict[str, Any]:
        """Return what ``/status`` says about it."""
        warning = self.warning
        return {"takes_nodes_without_key": bool(warning), "warning": warning or None}

    def admit(self, peer: str, headers: HeaderView) -> Sender:
        """Return the sender of a beat. Raises `BeatError` if it is not taken."""
        if headers.get("Authorization", ""):
            return Sender(peer, self.key_of(headers).node_id)
        refusal = self._legacy.refusal(peer, headers, was_key_made=self._was_made)
        if refusal:
            raise BeatError(403, refusal)
        return Sender(peer)

    def takes_former(self) -> bool:
        """Tell whether any node without a key is taken now."""
        return self._legacy.is_open(was_key_made=self._was_made)

    @property
    def ends_with_first_key(self) -> bool:
        """Tell whether nodes without a key are taken until the first key is made."""
        rule = self._legacy
        return self.takes_former() and not rule.is_open(was_key_made=True)

    def key_of(self, headers: HeaderView) -> NodeKey:
        """Return the key of the node that sends a request. Raises `BeatError`."""
        key = self._keyring.find(bearer_of(headers.get("Authorization", "")))
        if key is None:
            raise BeatError(
                401,
                "this hub has no such key of a node: the node was removed, or another"
                " machine joined under its name; run the line that `ollama-proxy"
                " node-token` prints on the hub on that machine",
            )
        self._keyring.note_use(key)
        return key

    @property
    def _was_made(self) -> bool:
        return self._keyring.was_key_made or self._was_client_key_made()
