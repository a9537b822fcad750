"""Measure the requests a minute of one key, across restarts too."""

import contextlib
from typing import Final

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.access.rate_limits import Bucket
from ollama_proxy.store.ports import CommitmentStore

RATE: Final = "rate"

_MINUTE_S: Final = 60.0
_MS: Final = 1000.0


class Rate:
    """Holds how many requests of a key may begin now: its bucket of `rate_limits`.

    While the key is used, the latest time at which the bucket is full again is stored
    once a minute, and the exact one at the end of the process. A store that can't be
    written stops no request: a rate is no money.
    """

    __slots__ = ("_bucket", "_full_at", "_key", "_rpm", "_store")

    def __init__(self, store: CommitmentStore, key: KeyId) -> None:
        self._store = store
        self._key = key
        self._rpm = 0
        self._bucket: Bucket | None = None
        self._full_at = 0.0

    def level(self, rpm: int, now: float) -> float:
        """Return how many requests may begin at once."""
        if self._bucket is None:
            self._bucket = self._restored(rpm, now)
        self._rpm = rpm
        self._bucket = self._bucket.refilled(rpm, now)
        return self._bucket.level

    def take(self) -> None:
        """Count a request that begins."""
        if self._bucket is None:
            return
        self._bucket = self._bucket.without_one()
        if self._full_at < self._bucket.at + _MINUTE_S:
            self._put(self._bucket.at + 2 * _MINUTE_S)  # true for a minute from now

    def give_back(self) -> None:
        """Count a request as if it had not begun."""
        if self._bucket is not None:
            self._bucket = self._bucket.with_one_more()

    def close(self) -> None:
        """Record exactly when the bucket is full again."""
        if self._bucket is not None and self._full_at and self._rpm:
            lacking = self._rpm - self._bucket.level
            self._put(self._bucket.at + lacking * _MINUTE_S / self._rpm)

    def _restored(self, rpm: int, now: float) -> Bucket:
        full_at = 0.0
        with contextlib.suppress(StoreError):
            full_at = self._store.commitments(self._key).get((RATE, ""), 0) / _MS
        lacking = min(max(full_at - now, 0.0), _MINUTE_S) * rpm / _MINUTE_S
        return Bucket(rpm, rpm - lacking, now)

    def _put(self, full_at: float) -> None:
        self._full_at = full_at
        with contextlib.suppress(StoreError):
            self._store.put_commitment(self._key, RATE, "", round(full_at * _MS))
