"""Hold keys of nodes, and the tokens that machines join with. Values and texts only.

A join token is ``opj_<8 hex letters>_<43 letters>``, then ``.`` and the fingerprint of
the hub's authority, unless it is for a hub without TLS. A node's key is ``opn_<16 hex
letters>_<43 letters>``. Of both, the hub keeps only a digest; 256 random bits need no
slow one. A node draws its own key, so that no answer of the hub has a secret in it, and
an answer that got lost can be repeated.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final, NewType

NodeKeyId = NewType("NodeKeyId", str)
"""Names a node's key, and the node in its certificate: 16 hex letters."""

JOIN_PREFIX: Final = "opj_"
NODE_PREFIX: Final = "opn_"
PREFIXES: Final = (NODE_PREFIX, JOIN_PREFIX)
SECRET_BYTES: Final = 32
TOKEN_ID_LETTERS: Final = 8
NODE_KEY_ID_LETTERS: Final = 16

_TOKEN = re.compile(
    r"(?P<sent>opj_(?P<id>[0-9a-f]{8})_[A-Za-z0-9_-]{43})"
    r"(\.(?P<fingerprint>[A-Za-z0-9_-]{43}))?"
)
_NODE_KEY = re.compile(r"opn_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_BEARER = "bearer "
_NONCE_LABEL = b"which node answers"


@dataclass(frozen=True, slots=True)
class NodeKey:
    """Holds a node's key as the hub keeps it: ``digest`` is the SHA-256 of its text.

    ``is_used``: the node has sent something with it, so it has what it needs.
    """

    id: NodeKeyId
    node_id: str
    digest: bytes = field(repr=False)
    made_at: float = 0.0
    is_used: bool = False


@dataclass(frozen=True, slots=True)
class JoinToken:
    """Holds a token that one machine may join with, as the hub keeps it.

    ``used_by``: the key that was made with it, "" before. ``request``: digest of the
    request that made it; the same one again gets the same answer.
    """

    id: str
    digest: bytes = field(repr=False)
    made_at: float = 0.0
    expires_at: float = 0.0
    used_by: NodeKeyId = NodeKeyId("")
    request: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class GivenToken:
    """Holds a join token as a person pastes it.

    ``sent``: what the hub gets. ``fingerprint``: of its authority, "" without TLS.
    """

    id: str
    sent: str = field(repr=False)
    fingerprint: str = ""


def join_token_text(token_id: str, secret: bytes, fingerprint: str) -> str:
    """Return the text of a join token, from its id and 32 random bytes."""
    text = f"{JOIN_PREFIX}{token_id}_{letters(secret)}"
    return f"{text}.{fingerprint}" if fingerprint else text


def read_join_token(text: str) -> GivenToken | None:
    """Return the parts of a join token; None if no token is written like that."""
    found = _TOKEN.fullmatch(text)
    if found is None:
        return None
    return GivenToken(found["id"], found["sent"], found["fingerprint"] or "")


def node_key_text(key_id: NodeKeyId, secret: bytes) -> str:
    """Return the text of a node's key, from its id and 32 random bytes."""
    return f"{NODE_PREFIX}{key_id}_{letters(secret)}"


def node_key_id_of(text: str) -> NodeKeyId | None:
    """Return which key a text claims to be; None if no node's key is written so."""
    found = _NODE_KEY.fullmatch(text)
    return None if found is None else NodeKeyId(found[1])


def is_of_nodes(text: str) -> bool:
    """Tell whether a text begins as a node's key or a join token does."""
    return text.startswith(PREFIXES)


def letters(data: bytes) -> str:
    """Return bytes as letters that are safe in a URL and a shell: 32 are 43."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def bearer_of(authorization: str) -> str:
    """Return the text that a header ``Authorization`` bears; "" if it bears none."""
    scheme, text = authorization[: len(_BEARER)], authorization[len(_BEARER) :]
    return text.strip() if scheme.lower() == _BEARER else ""


def digest_of(text: str) -> bytes:
    """Return what is kept of a secret text: its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def is_it(text: str, digest: bytes) -> bool:
    """Tell whether a text has a digest, in a time that says nothing else."""
    return hmac.compare_digest(digest_of(text), digest)


def nonce_secret(key_digest: bytes) -> bytes:
    """Return by what a node proves which one it is: both sides have the digest."""
    return hmac.new(key_digest, _NONCE_LABEL, hashlib.sha256).digest()


def nonce_proof(secret: bytes, nonce: str) -> str:
    """Return what only a node with this nonce secret answers: hexadecimal digits."""
    return hmac.new(secret, nonce.encode(), hashlib.sha256).hexdigest()
