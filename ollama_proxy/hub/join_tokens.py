"""Make, list and revoke the tokens that machines join with, by orders of people."""

import secrets
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import ProxyError
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.core.nodes.node_keys import (
    SECRET_BYTES,
    TOKEN_ID_LETTERS,
    JoinToken,
    digest_of,
    is_it,
    join_token_text,
    read_join_token,
)
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.store.ports import NodeKeyStore

LIFE_S: Final = 3600.0
"""How long a token is taken by default."""

SHORTEST_LIFE_S: Final = 60.0
LONGEST_LIFE_S: Final = 30 * 86_400.0

MOST_TOKENS: Final = 1000
"""How many tokens there may be at a time."""


class JoinTokenError(ProxyError):
    """Reports an order about join tokens that can't be carried out, in a sentence."""

    reason = "join_token"


class JoinTokens:
    """Holds the join tokens.

    A used token is kept until it ends, so that its one request can be repeated.
    """

    def __init__(
        self,
        store: NodeKeyStore,
        clock: Clock,
        audit: Audit,
    ) -> None:
        self._store = store
        self._clock = clock
        self._audit = audit
        self._by_id = {token.id: token for token in store.join_tokens()}

    def make(self, life_s: float, fingerprint: str, caller: Caller) -> tuple[str, str]:
        """Make a token for one machine; return its id, and its text for a person.

        The text is nowhere else. ``fingerprint``: of the hub's authority, "" for a
        joining without TLS. Raises `JoinTokenError`, `StoreError`.
        """
        if not SHORTEST_LIFE_S <= life_s <= LONGEST_LIFE_S:
            raise JoinTokenError(
                f"a join token lasts from {SHORTEST_LIFE_S:g} s to 30 days, not"
                f" {life_s:g} s; write --ttl 1h"
            )
        self._forget_ended()
        if len(self._by_id) >= MOST_TOKENS:
            raise JoinTokenError(
                f"there are {MOST_TOKENS} join tokens; revoke some with `ollama-proxy"
                " node-token --revoke ID`"
            )
        token_id = self._free_id()
        text = join_token_text(token_id, secrets.token_bytes(SECRET_BYTES), fingerprint)
        given = read_join_token(text)
        assert given is not None  # noqa: S101 - it was just written
        now = self._clock.now()
        token = JoinToken(token_id, digest_of(given.sent), now, now + life_s)
        line = self._audit.line(caller, "node-token", token_id)
        self._store.put_join_token(token, line)
        self._by_id[token_id] = token
        self._audit.tell(line)
        return token_id, text

    def outstanding(self) -> list[JoinToken]:
        """Return the tokens that a machine can still join with, the oldest first."""
        now = self._clock.now()
        return sorted(
            (one for one in self._by_id.values() if _is_open(one, now)),
            key=lambda token: token.made_at,
        )

    def revoke(self, token_id: str, caller: Caller) -> None:
        """Take a token no longer. Raises `JoinTokenError`, `StoreError`."""
        if token_id not in self._by_id:
            raise JoinTokenError(
                f"there is no join token {token_id[:TOKEN_ID_LETTERS]!r}; see"
                " `ollama-proxy node-token --list`"
            )
        line = self._audit.line(caller, "node-token --revoke", token_id)
        self._store.drop_join_tokens([token_id], line)
        del self._by_id[token_id]
        self._audit.tell(line)

    def find(self, sent: str) -> JoinToken | None:
        """Return the token that has this text; it may be used, or have ended."""
        given = read_join_token(sent)
        token = self._by_id.get(given.id) if given is not None else None
        return token if token is not None and is_it(sent, token.digest) else None

    def is_ended(self, token: JoinToken) -> bool:
        """Tell whether a token is too old."""
        return self._clock.now() >= token.expires_at

    def note_used(self, token: JoinToken) -> None:
        """Hold a token that was used; the store has it already."""
        self._by_id[token.id] = token

    def line_of_joining(self, caller: Caller, node_id: str) -> AuditLine:
        """Return the line of the audit about a node that joins."""
        return self._audit.line(caller, "node joined", node_id)

    def _forget_ended(self) -> None:
        ended = [one.id for one in self._by_id.values() if self.is_ended(one)]
        if ended:
            self._store.drop_join_tokens(ended)
            for token_id in ended:
                del self._by_id[token_id]

    def _free_id(self) -> str:
        while True:
            token_id = secrets.token_hex(TOKEN_ID_LETTERS // 2)
            if token_id not in self._by_id:
                return token_id


def _is_open(token: JoinToken, now: float) -> bool:
    return not token.used_by and now < token.expires_at
