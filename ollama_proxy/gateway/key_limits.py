"""Admit the requests of each key within its limits, and count what they use.

All is synchronous, in one event loop: between a decision and its reservation nothing
else runs, so parallel requests can't exceed a limit together.
"""

import math
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.days import utc_day
from ollama_proxy.core.access.decision import (
    KeyRefusal,
    KeyUse,
    RefusalReason,
    decide,
    decide_rights,
)
from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.core.access.route_classes import WORK
from ollama_proxy.core.access.spending import Forecast
from ollama_proxy.core.access.token_estimate import tokens_to_reserve
from ollama_proxy.core.access.work import Work
from ollama_proxy.gateway.account_book import AccountBook
from ollama_proxy.gateway.accounts import Account
from ollama_proxy.gateway.permits import KeyMeter, Permit, Settlement
from ollama_proxy.gateway.rates import Rate
from ollama_proxy.gateway.spending import Spending
from ollama_proxy.store.ports import CommitmentStore

TOKENS: Final = "tokens"

_NO_COST: Final = Forecast()
_UNAVAILABLE = 503
_RECORD_RETRY_S: Final = 30.0


class KeyLimits:
    """Holds what every key uses now. Requests of keys without limits are counted too.

    Rates are measured by the clock's moments, which no change of the date affects; days
    are those of the machine's date, in UTC.
    """

    def __init__(
        self, store: CommitmentStore, clock: Clock, spending: Spending
    ) -> None:
        self.spending = spending
        self._store = store
        self._clock = clock
        self._book = AccountBook(store)
        self._meters: dict[KeyId, KeyMeter] = {}
        self._settlement = Settlement(clock, spending)

    def admit(self, key: Key, work: Work, now: float) -> Permit | KeyRefusal:
        """Admit a request and reserve what it may use, or return why it is refused.

        ``now``: a moment of `Clock.now`. Each permit must be ended once.
        """
        if work.route_class not in WORK:  # free of limits, so counted apart
            refusal = decide_rights(key, work, now)
            return refusal or Permit(self._settlement, KeyMeter(), work)
        meter = self._meters.get(key.id)
        if meter is None:
            meter = self._meters[key.id] = KeyMeter()
        if not (key.rights.has_limits or self.spending.is_needed):
            meter.rate = None
            if (refusal := decide_rights(key, work, now)) is not None:
                return refusal
            meter.in_flight += 1
            return Permit(self._settlement, meter, work)
        try:
            account, forecast = self._account(key), self._forecast(key, work)
            usage = self._usage(key, meter, account, forecast, now)
            refusal = decide(key, work, usage, now)
            return refusal or self._admitted(key, meter, work, account, forecast)
        except StoreError as error:
            return _unrecorded(key, error)

    def in_flight(self, key: KeyId) -> int:
        """Return how many requests of a key are in progress."""
        meter = self._meters.get(key)
        return 0 if meter is None else meter.in_flight

    def tokens_of(self, key: Key) -> int | None:
        """Return what a key has used and reserved today, as its limit counts it.

        None without such a limit. Raises `StoreError`.
        """
        account = self._account(key)
        return None if account is None else account.total

    def close(self) -> None:
        """Record exactly what each key used, at the end of the process."""
        for meter in self._meters.values():
            if meter.rate is not None:
                meter.rate.close()
        self._book.close()
        self.spending.close()

    def _account(self, key: Key) -> Account | None:
        """Return the account of today's tokens, if the key has a limit of them.

        Raises `StoreError`.
        """
        limit = key.rights.tokens_per_day
        if limit is None:
            return None
        return self._book.account(key.id, TOKENS, utc_day(self._clock.wall()), limit)

    def _forecast(self, key: Key, work: Work) -> Forecast | None:
        """Return what a request may cost; None if nothing costs anything here."""
        if not self.spending.is_needed:
            return None
        if not key.rights.has_budget:
            return _NO_COST  # its time is shared with others all the same
        return self.spending.forecast(key, work)

    def _usage(
        self,
        key: Key,
        meter: KeyMeter,
        account: Account | None,
        forecast: Forecast | None,
        now: float,
    ) -> KeyUse:
        rpm = key.rights.rpm
        if rpm is None:
            level, meter.rate = math.inf, None
        else:
            rate = meter.rate or Rate(self._store, key.id)
            level, meter.rate = rate.level(rpm, now), rate
        tokens, reserved = 0, 0
        if account is not None:
            tokens, reserved = account.total, account.reserved
        day, month, unpriced = 0, 0, ""
        if forecast is not None and key.rights.has_budget:
            day, month = self.spending.totals(key)
            unpriced = forecast.unpriced
        date = self._clock.wall()
        in_flight = meter.in_flight
        return KeyUse(level, in_flight, tokens, day, month, unpriced, date, reserved)

    def _admitted(
        self,
        key: Key,
        meter: KeyMeter,
        work: Work,
        account: Account | None,
        forecast: Forecast | None,
    ) -> Permit:
        """Return the permit, with its reservations. Raises `StoreError`."""
        reserved, expense = 0, None
        if forecast is not None:
            expense = self.spending.begin(key, work.model, forecast)
        if account is not None:
            reserved = tokens_to_reserve(work, self._settlement.sizes.usual(work.model))
            try:
                account.reserve(reserved)
            except StoreError:
                if expense is not None:
                    self.spending.end(expense)
                raise
        if meter.rate is not None:
            meter.rate.take()
        meter.in_flight += 1
        return Permit(self._settlement, meter, work, account, reserved, expense)


def _unrecorded(key: Key, error: StoreError) -> KeyRefusal:
    return KeyRefusal(
        _UNAVAILABLE,
        RefusalReason.RECORD,
        f"what the key {key.name!r} uses can't be recorded, so it may use nothing:"
        f" {error}",
        retry_after=_RECORD_RETRY_S,
    )
