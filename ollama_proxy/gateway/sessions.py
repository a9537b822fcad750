"""Hold the sessions of the page: a browser keeps a random id in place of the key."""

import secrets
from dataclasses import dataclass
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.gateway.key_text import digest_of

SESSION_S: Final = 12 * 3600.0
MOST_SESSIONS: Final = 10_000
MOST_OF_KEY: Final = 50
"""Beyond these the oldest session ends: of all, and of the same key."""

_ID_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Session:
    key_id: KeyId
    ends_at: float


class Sessions:
    """Knows whose each session is; in memory alone, so that a restart ends all.

    They are held by digests of their ids, in the order of their beginning.
    """

    def __init__(
        self, clock: Clock, most: int = MOST_SESSIONS, most_of_key: int = MOST_OF_KEY
    ) -> None:
        self._clock = clock
        self._most = most
        self._most_of_key = most_of_key
        self._held: dict[bytes, _Session] = {}
        self._of_key: dict[KeyId, dict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def begin(self, key: Key) -> str:
        """Return the id of a new session of a key."""
        while len(self._of_key.get(key.id, ())) >= self._most_of_key:
            self._drop(next(iter(self._of_key[key.id])))
        while len(self._held) >= self._most:
            self._drop(next(iter(self._held)))
        session = secrets.token_urlsafe(_ID_BYTES)
        digest = digest_of(session)
        self._held[digest] = _Session(key.id, self._clock.now() + SESSION_S)
        self._of_key.setdefault(key.id, {})[digest] = None
        return session

    def key_of(self, session: str) -> KeyId | None:
        """Return which key has begun a session; None if it is over or unknown."""
        digest = digest_of(session)
        held = self._held.get(digest)
        if held is not None and self._clock.now() >= held.ends_at:
            self._drop(digest)
            return None
        return held.key_id if held is not None else None

    def end(self, session: str) -> None:
        """End a session, if there is one with that id."""
        self._drop(digest_of(session))

    def end_of_key(self, key: Key) -> None:
        """End every session of a key that is no longer taken."""
        for digest in list(self._of_key.get(key.id, ())):
            self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        held = self._held.pop(digest, None)
        if held is None:
            return
        of_key = self._of_key[held.key_id]
        del of_key[digest]
        if not of_key:
            del self._of_key[held.key_id]
