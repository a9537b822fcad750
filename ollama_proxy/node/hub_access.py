"""Know the hub by the secrets of a joining, and prove to it which node answers."""

import hmac
import re
from dataclasses import dataclass, field

from ollama_proxy.core.nodes.node_keys import bearer_of, digest_of, nonce_proof

_NONCE = re.compile(r"[A-Za-z0-9_-]{16,128}")


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Holds what a node that has joined knows of its hub.

    ``hub_token_digest``: SHA-256 of the token that the hub sends with every request.
    ``nonce_secret``: shared by the hub and this node alone.
    """

    hub_token_digest: bytes = field(repr=False)
    nonce_secret: bytes = field(repr=False)

    def is_hub(self, authorization: str) -> bool:
        """Tell whether a header ``Authorization`` has the hub's token.

        The time it takes tells nothing of the token.
        """
        digest = digest_of(bearer_of(authorization))
        return hmac.compare_digest(digest, self.hub_token_digest)

    def proof(self, nonce: str) -> str | None:
        """Return the answer to a nonce, in hexadecimal digits; None to a strange one.

        A nonce is 16 to 128 letters, digits, dashes and underscores.
        """
        if _NONCE.fullmatch(nonce) is None:
            return None
        return nonce_proof(self.nonce_secret, nonce)
