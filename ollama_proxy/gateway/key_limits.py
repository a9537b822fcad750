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
from ollama_proxy.core.access.token_estimate import MOST_TOKENS, tokens_to_reserve
from ollama_proxy.core.access.usual_sizes import PRIOR_TOKENS, UsualSizes
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.gateway.account_book import AccountBook
from ollama_proxy.gateway.accounts import Account
from ollama_proxy.gateway.rates import Rate
from ollama_proxy.gateway.spending import Expense, Spending
from ollama_proxy.store.ports import CommitmentStore

TOKENS: Final = "tokens"

_GROWTH_TOKENS: Final = 64
"""Tokens by which a reservation is enlarged each time an answer outgrows it."""

_NO_COST: Final = Forecast()
_UNAVAILABLE = 503
_RECORD_RETRY_S: Final = 30.0


class _Meter:
    """Counts the requests of one key.

    ``rate``: None while the key has no limit of requests a minute.
    """

    __slots__ = ("in_flight", "rate")

    def __init__(self) -> None:
        self.in_flight = 0
        self.rate: Rate | None = None


class Permit:
    """Stands for an admitted request until its end, which settles it once.

    Further calls after its end do nothing. ``expense``: what it costs; None if that is
    nothing. ``needs_figures``: the tokens of its answer count for a limit, or tell how
    long the answers of a model are.
    """

    __slots__ = (
        "_account",
        "_is_open",
        "_limits",
        "_meter",
        "_reserved",
        "_room",
        "expense",
        "needs_figures",
        "work",
    )

    def __init__(
        self,
        limits: "KeyLimits",
        meter: _Meter,
        work: Work,
        account: Account | None = None,
        reserved: int = 0,
        expense: Expense | None = None,
    ) -> None:
        self.work = work
        self.expense = expense
        self.needs_figures = account is not None or work.output_tokens != 0
        self._limits = limits
        self._meter = meter
        self._account = account
        self._reserved = reserved
        self._room = max(reserved - work.prompt_tokens, 0) if reserved else 0
        self._is_open = True

    def undo(self) -> None:
        """End as if the request had never been admitted: it is admitted again."""
        if self._is_open and self._meter.rate is not None:
            self._meter.rate.give_back()
        self.end(0)

    def wish(self, pool: str) -> None:
        """Note that the request asks for an instance of a pool, and may wake one."""
        expense = self.expense
        if expense is not None and self._is_open and expense.key.rights.may_wake:
            self._limits.spending.wish(expense, pool)

    def enter(self, launch_id: LaunchId) -> None:
        """Note that the request is sent to an instance, of which it pays its share."""
        if self.expense is not None and self._is_open:
            self._limits.spending.enter(self.expense, launch_id)

    def leave(self) -> None:
        """Note that the request has left its instance."""
        if self.expense is not None:
            self._limits.spending.leave(self.expense)

    def grow(self, output_tokens_so_far: int) -> None:
        """Reserve more if an answer has outgrown what was reserved for it."""
        if output_tokens_so_far <= self._room or self._account is None:
            return
        if not self._is_open:
            return
        more = min(output_tokens_so_far, MOST_TOKENS) + _GROWTH_TOKENS - self._room
        self._room += more
        self._reserved += more
        self._account.reserve_anyway(more)

    def settle(
        self,
        prompt_tokens: int | None,
        output_tokens: int | None,
        *,
        is_measured: bool = True,
    ) -> None:
        """End with the tokens that were used; both None: nothing was done.

        One that is None counts as it was reserved. ``is_measured``: the instance
        counted the tokens, and so tells how long the model's answers are.
        """
        if not self._is_open:
            return
        if prompt_tokens is None and output_tokens is None:
            self.end(0)
            return
        if is_measured and output_tokens is not None:
            self._limits.note_answer(self.work, output_tokens)
        prompt = self.work.prompt_tokens if prompt_tokens is None else prompt_tokens
        output = self._room if output_tokens is None else output_tokens
        self.end(min(max(prompt, 0) + max(output, 0), MOST_TOKENS))

    def end(self, used: int = 0) -> None:
        """End with so many tokens used; none: nothing was done."""
        if not self._is_open:
            return
        self._is_open = False
        self._meter.in_flight -= 1
        if self.expense is not None:
            self._limits.spending.end(self.expense)
        if self._account is not None:
            self._limits.settle(self._account, self._reserved, used)


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
        self._meters: dict[KeyId, _Meter] = {}
        self._sizes = UsualSizes(PRIOR_TOKENS)

    def admit(self, key: Key, work: Work, now: float) -> Permit | KeyRefusal:
        """Admit a request and reserve what it may use, or return why it is refused.

        ``now``: a moment of `Clock.now`. Each permit must be ended once.
        """
        if work.route_class not in WORK:  # free of limits, so counted apart
            refusal = decide_rights(key, work, now)
            return refusal or Permit(self, _Meter(), work)
        meter = self._meters.get(key.id)
        if meter is None:
            meter = self._meters[key.id] = _Meter()
        if not (key.rights.has_limits or self.spending.is_needed):
            meter.rate = None
            if (refusal := decide_rights(key, work, now)) is not None:
                return refusal
            meter.in_flight += 1
            return Permit(self, meter, work)
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

    def note_answer(self, work: Work, output_tokens: int) -> None:
        """Remember how long an answer was."""
        if work.output_tokens != 0:
            self._sizes.add(work.model, output_tokens // max(work.answers, 1))

    def settle(self, account: Account, reserved: int, used: int) -> None:
        """Count what a request has used."""
        account.settle(reserved, used, self._clock.now())

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
        meter: _Meter,
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
        meter: _Meter,
        work: Work,
        account: Account | None,
        forecast: Forecast | None,
    ) -> Permit:
        """Return the permit, with its reservations. Raises `StoreError`."""
        reserved, expense = 0, None
        if forecast is not None:
            expense = self.spending.begin(key, work.model, forecast)
        if account is not None:
            reserved = tokens_to_reserve(work, self._sizes.usual(work.model))
            try:
                account.reserve(reserved)
            except StoreError:
                if expense is not None:
                    self.spending.end(expense)
                raise
        if meter.rate is not None:
            meter.rate.take()
        meter.in_flight += 1
        return Permit(self, meter, work, account, reserved, expense)


def _unrecorded(key: Key, error: StoreError) -> KeyRefusal:
    return KeyRefusal(
        _UNAVAILABLE,
        RefusalReason.RECORD,
        f"what the key {key.name!r} uses can't be recorded, so it may use nothing:"
        f" {error}",
        retry_after=_RECORD_RETRY_S,
    )
