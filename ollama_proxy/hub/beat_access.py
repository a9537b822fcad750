"""Decide whose beats are taken: of nodes with a key, and of former agents."""

from collections.abc import Callable
from typing import Any, Final

from ollama_proxy.core.access.facts import HeaderView
from ollama_proxy.core.nodes.beat import BeatError
from ollama_proxy.core.nodes.legacy_rule import LegacyRule
from ollama_proxy.core.nodes.node_keys import NodeKey
from ollama_proxy.hub.node_keyring import NodeKeyring
from ollama_proxy.hub.ports import Sender

_BEARER: Final = "bearer "
_JOIN_AGAIN = (
    "run the line that `ollama-proxy node-token` prints on the hub on that machine"
)


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

    def check_name(self, sender: Sender, node_id: str) -> None:
        """Refuse a beat without a key in the name of a node that has one.

        Also while that node is away: its name is not free. Raises `BeatError`.
        """
        if not sender.has_key and self._keyring.of_node(node_id) is not None:
            raise BeatError(
                403,
                f"the node {node_id!r} has a key, and this beat has none; set another"
                f" NODE_ID, or {_JOIN_AGAIN}",
            )

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
        sent = headers.get("Authorization", "")
        has_scheme = sent[: len(_BEARER)].lower() == _BEARER
        key = self._keyring.find(sent[len(_BEARER) :].strip()) if has_scheme else None
        if key is None:
            raise BeatError(
                401,
                "this hub has no such key of a node: the node was removed, or another"
                f" machine joined under its name; {_JOIN_AGAIN}",
            )
        self._keyring.note_use(key)
        return key

    @property
    def _was_made(self) -> bool:
        return self._keyring.was_key_made or self._was_client_key_made()
