"""Hold the money of keys: reserve what a request may cost, charge what it does.

An instance's time is paid by the keys with requests in flight on it; boot and idle time
by the key that woke it. If no key did, no key is charged for these.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.core.access.spending import Forecast, cost
from ollama_proxy.core.access.usual_sizes import PRIOR_S, UsualSizes
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ports import BackendNotes
from ollama_proxy.gateway.launch_meter import LaunchMeter, LaunchTerms
from ollama_proxy.gateway.purses import Purses, Reservation
from ollama_proxy.store.ports import Store

_NOTES: Final = "spending"
_CHARGE_EVERY_S: Final = 1.0
_WISH_LASTS_S: Final = 900.0


class Foresight(Protocol):
    """Knows what requests may cost."""

    @property
    def costs_anything(self) -> bool:
        """Tell whether any offer may cost money."""

    def forecast(self, work: Work, *, may_wake: bool) -> Forecast:
        """Return what a request may cost."""

    def forecast_wake(self, pool: str) -> Forecast:
        """Return what an order to wake an instance of a pool may cost."""


class _Note(msgspec.Struct):
    """Names the key that woke a launch, and until when its time was charged.

    0: not exactly known, after a crash.
    """

    key: str
    charged_until: float = 0.0


class Expense:
    """Stands for what one request may cost, until its end.

    ``pool``: where it waits for an instance; "" if it does not.
    """

    __slots__ = ("_meter", "_sent_at", "key", "model", "pool", "reservation")

    def __init__(self, key: Key, model: str, reservation: Reservation) -> None:
        self.key = key
        self.model = model
        self.pool = ""
        self.reservation = reservation
        self._meter: LaunchMeter | None = None
        self._sent_at: float | None = None

    def enter(self, meter: LaunchMeter, now: float) -> None:
        """Begin to share the cost of an instance."""
        self._meter, self._sent_at = meter, now
        meter.enter(self.key, self.reservation, now)

    def leave(self, now: float) -> float | None:
        """End its share; return how long it was there, None if on no instance."""
        if self._meter is None or self._sent_at is None:
            return None
        self._meter.leave(self.key, self.reservation, now)
        took_s, self._meter = now - self._sent_at, None
        return took_s


class Spending:
    """Charges the time of instances to keys, within their budgets."""

    def __init__(
        self, store: Store, clock: Clock, find_key: Callable[[KeyId], Key | None]
    ) -> None:
        self._notes: BackendNotes = store.notes_of(_NOTES)
        self._clock = clock
        self._find_key = find_key
        self._purses = Purses(store, clock)
        self._durations = UsualSizes(PRIOR_S)
        self._meters: dict[LaunchId, LaunchMeter] = {}
        self._wishes: dict[Expense, None] = {}
        self._last_wish: dict[str, tuple[Key, float]] = {}
        self._is_busy = asyncio.Event()
        self.foresight: Foresight | None = None

    def totals(self, key: Key) -> tuple[int, int]:
        """Return what a key has spent and reserved in the day and in the month.

        Raises `StoreError`.
        """
        return self._purses.totals(key)

    @property
    def is_needed(self) -> bool:
        """Tell whether any offer may cost money."""
        return self.foresight is not None and self.foresight.costs_anything

    def forecast(self, key: Key, work: Work) -> Forecast:
        """Return what a request may cost."""
        if self.foresight is None:
            return Forecast()
        return self.foresight.forecast(work, may_wake=key.rights.may_wake)

    def forecast_wake(self, pool: str) -> Forecast:
        """Return what an order to wake an instance of a pool may cost."""
        if self.foresight is None:
            return Forecast()
        return self.foresight.forecast_wake(pool)

    def begin(self, key: Key, model: str, forecast: Forecast) -> Expense:
        """Reserve what an admitted request may cost. Raises `StoreError`."""
        amount = 0
        if forecast.price:
            amount = max(1, forecast.reserve(self._durations.usual(model)))
        return Expense(key, model, self._purses.reserve(key, amount))

    def wish(self, expense: Expense, pool: str) -> None:
        """Take in that a request asks for an instance of a pool, and may wake one."""
        expense.pool = pool
        self._wishes[expense] = None

    def enter(self, expense: Expense, launch_id: LaunchId) -> None:
        """Take in that a request is sent to an instance."""
        self._wishes.pop(expense, None)
        meter = self._meters.get(launch_id)
        if meter is not None:
            expense.enter(meter, self._clock.now())

    def leave(self, expense: Expense) -> None:
        """Take in that a request has left its instance."""
        took_s = expense.leave(self._clock.now())
        if took_s is not None:
            self._durations.add(expense.model, round(took_s))

    def end(self, expense: Expense) -> None:
        """Release what a request has reserved and not used."""
        self.leave(expense)
        now = self._clock.now()
        if expense in self._wishes:
            del self._wishes[expense]
            self._last_wish[expense.pool] = (expense.key, now)
        expense.reservation.release(expense.reservation.amount, now)

    def launched(
        self,
        launch_id: LaunchId,
        pool: str,
        terms: LaunchTerms,
        *,
        is_new: bool,
    ) -> None:
        """Take in that an instance is being launched, or is found running."""
        if launch_id in self._meters or not terms.price:
            return
        now = self._clock.now()
        note = None if is_new else self._note_of(launch_id)
        begun_at = note.charged_until if note is not None else 0.0
        meter = LaunchMeter(
            terms,
            begun_at=begun_at if 0.0 < begun_at <= now else now,
            purses=self._purses,
        )
        self._meters[launch_id] = meter
        self._is_busy.set()
        if is_new:
            waker = self._waker_of(pool, terms.price, now)
        else:
            waker = None if note is None else self._find_key(KeyId(note.key))
        if waker is not None:
            meter.woken_by(waker, boots=is_new)
            self._put_note(launch_id, _Note(waker.id))

    def ready(self, launch_id: LaunchId, pool: str) -> None:
        """Take in that an instance serves: wishes of requests that ended are met."""
        self._last_wish.pop(pool, None)
        meter = self._meters.get(launch_id)
        if meter is not None:
            meter.booted(self._clock.now())

    def gone(self, launch_id: LaunchId) -> None:
        """Take in that an instance is gone."""
        meter = self._meters.pop(launch_id, None)
        if meter is None:
            return
        meter.end(self._clock.now())
        with contextlib.suppress(StoreError):
            self._notes.drop_note(launch_id)

    def charge(self) -> None:
        """Charge what every instance has cost until now."""
        now = self._clock.now()
        for meter in self._meters.values():
            meter.charge(now)

    async def run(self) -> None:
        """Charge every second while an instance costs money."""
        while True:
            if not self._meters:
                self._is_busy.clear()
                await self._is_busy.wait()
            await asyncio.sleep(_CHARGE_EVERY_S)
            self.charge()

    def close(self) -> None:
        """Record exactly what was spent, and until when, at the end of the process."""
        now = self._clock.now()
        for launch_id, meter in self._meters.items():
            meter.charge(now)
            meter.let_go(now)  # the next process reserves it again
            if meter.waker is not None:
                self._put_note(launch_id, _Note(meter.waker.id, now))
        self._purses.close()

    def _waker_of(self, pool: str, price: int, now: float) -> Key | None:
        """Return the key whose request waits longest for an instance of a pool.

        The launch reserves its boot and idle time from now on, so the request keeps
        what it needs besides.
        """
        for expense in self._wishes:
            if expense.pool == pool:
                kept = cost(price, self._durations.usual(expense.model))
                reservation = expense.reservation
                reservation.release(reservation.amount - kept, now)
                return expense.key
        key, at = self._last_wish.get(pool, (None, 0.0))
        return key if now - at <= _WISH_LASTS_S else None

    def _note_of(self, launch_id: LaunchId) -> _Note | None:
        raw = self._notes.notes().get(launch_id)
        try:
            return None if raw is None else msgspec.json.decode(raw, type=_Note)
        except msgspec.MsgspecError:
            return None

    def _put_note(self, launch_id: LaunchId, note: _Note) -> None:
        with contextlib.suppress(StoreError):
            self._notes.put_note(launch_id, msgspec.json.encode(note))
