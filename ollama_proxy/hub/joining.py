"""Let a machine join with a token, once, and renew the certificates of nodes.

A joining is stored whole before it is answered. The answer has no secrets, so that the
same request may have it again until the node uses its key: an agent or a hub that is
killed anywhere in between goes on by asking once more.
"""

from dataclasses import replace

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import ProxyError
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.core.nodes.join_request import (
    JoinAnswer,
    JoinRequest,
    RenewAnswer,
    RenewRequest,
)
from ollama_proxy.core.nodes.node_keys import JoinToken, NodeKey, NodeKeyId, digest_of
from ollama_proxy.hub.authority import CertificateRequestError, HubAuthority
from ollama_proxy.hub.join_tokens import JoinTokens
from ollama_proxy.hub.node_keyring import NodeKeyring

_ANOTHER = "make another with `ollama-proxy node-token` on the hub"


class JoinRefusedError(ProxyError):
    """Reports a machine that does not join: the status, and the reason, a sentence."""

    reason = "join_refused"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Joining:
    """Carries out joinings and renewals."""

    def __init__(
        self,
        authority: HubAuthority,
        tokens: JoinTokens,
        keyring: NodeKeyring,
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._tokens = tokens
        self._keyring = keyring
        self._clock = clock

    @property
    def authority(self) -> str:
        """Return the certificate of the authority, PEM."""
        return self._authority.certificate

    def join(self, request: JoinRequest, peer: str) -> JoinAnswer:
        """Make the key of a node with its token, and return what the node gets.

        Raises `JoinRefusedError`; `StoreError`, and nothing has happened.
        """
        token = self._tokens.find(request.token)
        if token is None:
            raise JoinRefusedError(
                403,
                "this hub has no such join token: it was revoked, ended long ago or is"
                f" of another hub; {_ANOTHER}",
            )
        if token.used_by:
            return self._again(token, request)
        if self._tokens.is_ended(token):
            raise JoinRefusedError(403, f"this join token has ended; {_ANOTHER}")
        if self._keyring.by_id(request.key_id) is not None:
            message = "this hub has a key with that id already; draw another key_id"
            raise JoinRefusedError(409, message)
        answer = self._answer(request)  # before anything changes: it may be refused
        self._accept(token, request, peer)
        return answer

    def renew(self, key: NodeKey, request: RenewRequest) -> RenewAnswer:
        """Return a new certificate for the node with a key.

        Raises `JoinRefusedError`.
        """
        self._keyring.note_use(key)
        return RenewAnswer(self._sign(request.certificate_request, key.id))

    def _accept(self, token: JoinToken, request: JoinRequest, peer: str) -> None:
        now = self._clock.now()
        key = NodeKey(request.key_id, request.node_id, request.key_digest, now)
        used = replace(token, used_by=key.id, request=request.digest)
        line = self._tokens.line_of_joining(Caller(peer), request.node_id)
        had_key = self._keyring.of_node(request.node_id) is not None
        self._keyring.join(used, key, line)
        self._tokens.note_used(used)
        logger = structlog.get_logger()
        write = logger.warning if had_key else logger.info
        write(log.NODE_JOINED, node_id=request.node_id, address=peer, had_key=had_key)

    def _again(self, token: JoinToken, request: JoinRequest) -> JoinAnswer:
        """Return the same answer to the same request, until the key was used."""
        key = self._keyring.by_id(token.used_by)
        is_same = token.request == request.digest
        if key is None or key.is_used or not is_same:
            raise JoinRefusedError(
                403,
                "a machine has joined with this token, and each is for one joining;"
                f" {_ANOTHER}",
            )
        return self._answer(request)

    def _answer(self, request: JoinRequest) -> JoinAnswer:
        asked = request.certificate_request
        return JoinAnswer(
            request.node_id,
            self._sign(asked, request.key_id) if asked else "",
            self._authority.certificate if asked else "",
            digest_of(self._authority.hub_token(request.key_id)).hex(),
        )

    def _sign(self, request: str, key_id: NodeKeyId) -> str:
        try:
            return self._authority.sign(request, key_id)
        except CertificateRequestError as error:
            raise JoinRefusedError(400, str(error)) from None
