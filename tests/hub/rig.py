"""A hub's joining in memory, and a machine that joins it."""

from dataclasses import dataclass, field
from pathlib import Path

from ollama_proxy.core.access.keys import Caller
from ollama_proxy.core.nodes.join_request import JoinRequest
from ollama_proxy.core.nodes.node_keys import (
    NodeKeyId,
    digest_of,
    node_key_text,
    read_join_token,
)
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.hub.authority import HubAuthority
from ollama_proxy.hub.join_tokens import JoinTokens
from ollama_proxy.hub.joining import Joining
from ollama_proxy.hub.node_keyring import NodeKeyring
from ollama_proxy.node.certificate_request import certificate_request, make_private_key
from ollama_proxy.store.memory import MemoryStore
from ollama_proxy.store.ports import Store
from tests.virtual_time import SetClock

OWNER = Caller("127.0.0.1", is_admin=True)
PEER = "192.168.1.7"


@dataclass
class JoinRig:
    """A hub that machines join, over a store that outlives it."""

    folder: Path
    store: Store = field(default_factory=MemoryStore)
    clock: SetClock = field(default_factory=SetClock)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin again as a process does that was killed: with what is stored."""
        self.authority = HubAuthority(self.folder, self.clock)
        self.keyring = NodeKeyring(self.store)
        self.tokens = JoinTokens(self.store, self.clock, Audit(self.store, self.clock))
        self.joining = Joining(self.authority, self.tokens, self.keyring, self.clock)

    def token(self, life_s: float = 3600.0) -> str:
        """Return what a machine sends of a new token."""
        _, text = self.tokens.make(life_s, self.authority.fingerprint, OWNER)
        given = read_join_token(text)
        assert given is not None
        assert given.fingerprint == self.authority.fingerprint
        return given.sent

    def request(self, token: str, node_id: str = "box", number: int = 1) -> JoinRequest:
        """Return the request of a machine, which draws its key by a number."""
        return JoinRequest(
            token,
            node_id,
            key_id(number),
            digest_of(key_text(number)),
            certificate_request(make_private_key()),
        )


def key_id(number: int = 1) -> NodeKeyId:
    """Return the id of a key."""
    return NodeKeyId(f"{number:016x}")


def key_text(number: int = 1) -> str:
    """Return the text of a key."""
    return node_key_text(key_id(number), bytes([number]) * 32)
