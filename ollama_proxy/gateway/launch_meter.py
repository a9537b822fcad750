"""Measure what one running instance costs, and say which keys pay."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.core.access.spending import cost, shares
from ollama_proxy.gateway.purses import Purses, Reservation


@dataclass(frozen=True, slots=True)
class LaunchTerms:
    """Holds what an instance costs, and for how long it may.

    - ``price``: in millionths an hour.
    - ``boot_s``: how long it takes to start; ``idle_s``: how long it runs without work.
    - ``unattended_s``: how long it runs without a proxy before it ends by itself.
    """

    price: int
    boot_s: float = 0.0
    idle_s: float = 0.0
    unattended_s: float = math.inf


class _User:
    """Holds what the requests of one key on an instance have reserved."""

    __slots__ = ("key", "requests")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.requests: dict[Reservation, None] = {}


class LaunchMeter:
    """Counts the cost of an instance from its launch to its end.

    Each stretch of time is paid by the keys that had requests in flight on it, in equal
    parts, else by the key that woke it. A time in which the proxy was away or asleep
    costs no more than the instance runs by itself.
    """

    def __init__(
        self,
        terms: LaunchTerms,
        *,
        begun_at: float,
        purses: Purses,
    ) -> None:
        self.waker: Key | None = None
        self._terms = terms
        self._idle_cost = cost(terms.price, terms.idle_s)
        self._begun_at = self._looked_at = begun_at
        self._charged = 0
        self._turn = 0
        self._purses = purses
        self._users: dict[KeyId, _User] = {}
        self._hold = Reservation(())

    def woken_by(self, key: Key, *, boots: bool) -> None:
        """Let a key pay for the boot and for idle time, and reserve both.

        ``boots``: the boot is still to come.
        """
        self.waker = key
        terms = self._terms
        boot_cost = cost(terms.price, terms.boot_s) if boots else 0
        reserved = boot_cost + self._idle_cost
        self._hold = self._purses.reserve_anyway(key, reserved)

    def booted(self, now: float) -> None:
        """Reserve no more than idle time: the boot is over."""
        self.charge(now)
        self._hold.release(self._hold.amount - self._idle_cost, now)

    def enter(self, key: Key, reservation: Reservation, now: float) -> None:
        """Begin to share the cost with a request that is sent to the instance."""
        self.charge(now)
        user = self._users.get(key.id)
        if user is None:
            user = self._users[key.id] = _User(key)
        user.requests[reservation] = None

    def leave(self, key: Key, reservation: Reservation, now: float) -> None:
        """End the share of a request that has left the instance."""
        self.charge(now)
        user = self._users.get(key.id)
        if user is None:
            return
        user.requests.pop(reservation, None)
        if not user.requests:
            del self._users[key.id]

    def charge(self, now: float) -> None:
        """Divide what the instance has cost since the last time."""
        away_s = now - self._looked_at - self._terms.unattended_s
        if away_s > 0:  # it has ended meanwhile
            self._begun_at += away_s
        self._looked_at = now
        total = cost(self._terms.price, now - self._begun_at)
        amount = total - self._charged
        if amount < max(1, len(self._users)):  # later, when each pays a millionth
            return
        self._charged = total
        self._turn += 1
        if not self._users:
            self._charge_waker(amount, now)
            return
        for user, share in shares(amount, list(self._users.values()), self._turn):
            _draw(user.requests, share, now)
            self._purses.spend(user.key, share)

    def end(self, now: float) -> None:
        """Charge the rest; the instance is gone."""
        self.charge(now)
        self.let_go(now)

    def let_go(self, now: float) -> None:
        """Reserve nothing more for idle time."""
        self._hold.release(self._hold.amount, now)

    def _charge_waker(self, amount: int, now: float) -> None:
        if self.waker is None:
            return
        self._hold.release(min(amount, self._hold.amount - self._idle_cost), now)
        self._purses.spend(self.waker, amount)
        self._renew_hold(self.waker, now)

    def _renew_hold(self, waker: Key, now: float) -> None:
        """Reserve idle time in the accounts of today once the day has changed."""
        if self._hold.accounts != self._purses.accounts_now(waker):
            held = self._hold.amount
            self._hold.release(held, now)
            self._hold = self._purses.reserve_anyway(waker, held)


def _draw(requests: Iterable[Reservation], amount: int, now: float) -> None:
    """Take what was spent from what the requests of a key have reserved."""
    for reservation in requests:
        part = min(amount, reservation.amount)
        reservation.release(part, now)
        amount -= part
        if amount <= 0:
            return
