"""Count what a key uses of a limited amount, reserved before it is used.

Neither a crash nor parallel requests exceed the limit. The store holds a
commitment that is never below what is used and reserved; it is raised in blocks, before
the use that it allows. After a crash the commitment counts as used.
"""

import contextlib
from typing import Final

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.store.ports import CommitmentStore

_BLOCKS: Final = 50
"""Blocks in a limit: what a crash costs a key at most, and how often is written."""

_SLACK_BLOCKS: Final = 5
_LOWER_EVERY_S: Final = 60.0


class Account:
    """Counts what one key uses of one kind in one period.

    ``used``: for good. ``reserved``: for requests in progress, and of money for the
    boot and idle time of instances. ``limit``: the present one, which sets how large a
    block is.
    """

    __slots__ = (
        "_committed",
        "_key",
        "_kind",
        "_lowered_at",
        "_period",
        "_store",
        "limit",
        "reserved",
        "used",
    )

    def __init__(
        self,
        store: CommitmentStore,
        key: KeyId,
        kind: str,
        period: str,
        committed: int = 0,
    ) -> None:
        self._store = store
        self._key, self._kind, self._period = key, kind, period
        self._committed = self.used = committed
        self._lowered_at = 0.0
        self.reserved = 0
        self.limit = 0

    @property
    def total(self) -> int:
        """Return what is used and reserved."""
        return self.used + self.reserved

    def reserve(self, amount: int) -> None:
        """Reserve an amount. Raises `StoreError`, and then nothing is reserved."""
        self._cover(self.total + amount)
        self.reserved += amount

    def reserve_anyway(self, amount: int) -> None:
        """Reserve what is being used already, even if the store can't be written."""
        self.reserved += amount
        with contextlib.suppress(StoreError):  # the next reservation is refused
            self._cover(self.total)

    def settle(self, reserved: int, used: int, now: float) -> None:
        """Release a reservation, and count what was used of it, or beyond it."""
        self.reserved -= reserved
        self.used += used
        with contextlib.suppress(StoreError):
            self._cover(self.total)
            self._lower(now)

    def close(self) -> None:
        """Commit no more than is used and reserved, at the end of the process."""
        if self._committed != self.total:
            with contextlib.suppress(StoreError):
                self._commit(self.total)

    @property
    def _block(self) -> int:
        return max(1, self.limit // _BLOCKS)

    def _cover(self, needed: int) -> None:
        if needed > self._committed:
            self._commit(max(needed, min(needed + self._block, self.limit)))

    def _lower(self, now: float) -> None:
        """Lower a commitment that large reservations have raised; once a minute."""
        slack = self._committed - self.total
        if slack <= _SLACK_BLOCKS * self._block:
            return
        if abs(now - self._lowered_at) < _LOWER_EVERY_S:
            return
        self._lowered_at = now
        self._commit(self.total + self._block)

    def _commit(self, amount: int) -> None:
        self._store.put_commitment(self._key, self._kind, self._period, amount)
        self._committed = amount
