"""Decide whether a key may send a request: its rights first, then its limits. Pure."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from ollama_proxy.core.access.allowed_models import may_use_model
from ollama_proxy.core.access.days import next_day, next_month, utc_time
from ollama_proxy.core.access.keys import Key, KeyStanding
from ollama_proxy.core.access.rate_limits import wait_for_one_s
from ollama_proxy.core.access.route_classes import WORK, RouteClass
from ollama_proxy.core.access.spending import amount_text
from ollama_proxy.core.access.work import Work

_FORBIDDEN, _NO_KEY, _TOO_MUCH = 403, 401, 429
_ENDS_SOON_S: Final = 1.0


class RefusalReason(StrEnum):
    """Names why a key, or the lack of one, is refused.

    ``KEY``: there is none, or it is not valid. ``RIGHT``: it may not do that. ``BODY``:
    what it asks for can't be read from the body. ``RECORD``: what it would use can't be
    recorded. The others name a limit of the key.
    """

    KEY = "key"
    RIGHT = "right"
    BODY = "body"
    RECORD = "record"
    RATE = "rate"
    PARALLEL = "parallel"
    TOKENS = "tokens"
    MONEY = "money"


@dataclass(frozen=True, slots=True)
class KeyRefusal:
    """Holds why a request is refused, for its answer.

    ``message``: a clause without full stop. ``retry_after``: seconds until it is worth
    asking again; None: no wait helps. ``resets_at``: when the limit is free again, in
    seconds since 1970.
    """

    status: int
    reason: RefusalReason
    message: str
    retry_after: float | None = None
    resets_at: float | None = None

    @property
    def ends_soon(self) -> bool:
        """Tell whether it ends with a request in progress, not at a known time."""
        return self.retry_after is not None and self.resets_at is None

    @property
    def is_of_valid_key(self) -> bool:
        """Tell whether a valid key lacks a right, or has reached a limit."""
        return self.status in {_FORBIDDEN, _TOO_MUCH}


class KeyUse(NamedTuple):
    """Holds what a key uses at a moment, without the request that is judged.

    - ``date``: the machine's, by which days are counted; None: `decide` takes its
      ``now``.
    - ``rate_level``: how many requests may begin at once; see `rate_limits`.
    - ``in_flight``: its requests in progress.
    - ``tokens``: used today, and reserved by its requests in progress; of these
      ``tokens_reserved`` are reserved.
    - ``money_day``, ``money_month``: spent and reserved, in millionths.
    - ``unpriced``: why the price of the request is unknown, as a clause; "" if it is
      known.
    """

    rate_level: float = math.inf
    in_flight: int = 0
    tokens: int = 0
    money_day: int = 0
    money_month: int = 0
    unpriced: str = ""
    date: float | None = None
    tokens_reserved: int = 0


def decide(key: Key, work: Work, usage: KeyUse, now: float) -> KeyRefusal | None:
    """Return why a request is refused, by the first rule that refuses it; None: it may.

    In this order: the key is valid, its right, the model, requests a minute, requests
    at once, tokens, money. Requests that are no work are free of limits. ``now``: a
    moment of `Clock.now`.
    """
    refusal = decide_rights(key, work, now)
    if refusal is not None or not key.rights.has_limits:
        return refusal
    if work.route_class not in WORK:
        return None
    date = now if usage.date is None else usage.date
    return (
        _of_rate(key, usage, date)
        or _of_parallel(key, usage)
        or _of_tokens(key, usage, date)
        or decide_money(key, usage, date)
    )


def decide_rights(key: Key, work: Work, now: float) -> KeyRefusal | None:
    """Return why a request is refused that no limit applies to; None: it may."""
    refusal = decide_route(key, work.route_class, now)
    return refusal or (_of_model(key, work.model) if work.model else None)


def decide_route(key: Key, needed: RouteClass | None, now: float) -> KeyRefusal | None:
    """Return why a key may not send a request to a class of routes; None: it may.

    ``needed``: None if the route is open to everybody.
    """
    is_right = needed is None or needed in key.rights.routes
    if is_right and key.expires_at is None and not key.is_disabled:
        return None  # nearly always, and each request asks it twice
    standing = key.standing(now)
    if is_right and standing is KeyStanding.VALID:
        return None
    if standing is KeyStanding.DISABLED:
        return no_key(f"the key {key.name!r} is disabled; use another key")
    if standing is KeyStanding.EXPIRED:
        at = _told(key.expires_at or 0.0)
        return no_key(f"the key {key.name!r} expired at {at}; use another key")
    if is_right or needed is None:
        return None
    may = ", ".join(sorted(key.rights.routes)) or "nothing"
    return forbidden(
        f"the key {key.name!r} lacks the right {needed.value!r}, it may: {may}"
    )


def _of_model(key: Key, model: str) -> KeyRefusal | None:
    globs = key.rights.models
    if may_use_model(globs, model):
        return None
    return forbidden(
        f"the key {key.name!r} may not use the model {model[:200]!r}, but:"
        f" {', '.join(globs)}"
    )


def _of_rate(key: Key, usage: KeyUse, date: float) -> KeyRefusal | None:
    rpm = key.rights.rpm
    if rpm is None or usage.rate_level >= 1.0:
        return None
    wait_s = wait_for_one_s(usage.rate_level, rpm)
    return KeyRefusal(
        _TOO_MUCH,
        RefusalReason.RATE,
        f"the key {key.name!r} may send {rpm} requests a minute, and has sent them",
        retry_after=wait_s,
        resets_at=None if wait_s is None else date + wait_s,
    )


def _of_parallel(key: Key, usage: KeyUse) -> KeyRefusal | None:
    most = key.rights.most_at_once
    if most is None or usage.in_flight < most:
        return None
    return KeyRefusal(
        _TOO_MUCH,
        RefusalReason.PARALLEL,
        f"the key {key.name!r} may have {most} requests in progress, and has"
        f" {usage.in_flight}; wait until one has ended",
        retry_after=_ENDS_SOON_S,
    )


def _of_tokens(key: Key, usage: KeyUse, date: float) -> KeyRefusal | None:
    limit = key.rights.tokens_per_day
    if limit is None or usage.tokens < limit:
        return None
    used = usage.tokens - usage.tokens_reserved
    if used < limit:
        return KeyRefusal(
            _TOO_MUCH,
            RefusalReason.TOKENS,
            f"the key {key.name!r} may use {limit} tokens a day: {used} are used, and"
            f" {usage.tokens_reserved} are reserved by its requests in progress; wait"
            " until one has ended",
            retry_after=_ENDS_SOON_S,
        )
    return _used_up(
        RefusalReason.TOKENS,
        f"the key {key.name!r} may use {limit} tokens a day, and {usage.tokens} are"
        " used or reserved by its requests in progress",
        date,
        next_day(date),
    )


def decide_money(key: Key, usage: KeyUse, date: float) -> KeyRefusal | None:
    """Return why the budgets of a key refuse; ``date``: in seconds since 1970."""
    rights = key.rights
    if not rights.has_budget:
        return None
    if usage.unpriced:
        return KeyRefusal(
            _TOO_MUCH,
            RefusalReason.MONEY,
            f"the key {key.name!r} has a budget, and {usage.unpriced}",
        )
    for budget, spent, period, ends_at in (
        (rights.budget_month, usage.money_month, "month", next_month(date)),
        (rights.budget_day, usage.money_day, "day", next_day(date)),
    ):
        if budget is not None and spent >= budget:
            told = (
                f"the key {key.name!r} may spend {_money(budget)} a {period}, and"
                f" {_money(spent)} are spent or reserved by its requests in progress"
            )
            return _used_up(RefusalReason.MONEY, told, date, ends_at)
    return None


def _used_up(
    reason: RefusalReason, message: str, date: float, resets_at: float
) -> KeyRefusal:
    return KeyRefusal(_TOO_MUCH, reason, message, resets_at - date, resets_at)


def no_key(message: str) -> KeyRefusal:
    """Return the 401 of a request that has no valid key."""
    return KeyRefusal(_NO_KEY, RefusalReason.KEY, message)


def forbidden(message: str) -> KeyRefusal:
    """Return the 403 of a request that its caller may not send."""
    return KeyRefusal(_FORBIDDEN, RefusalReason.RIGHT, message)


def _money(millionths: int) -> str:
    return amount_text(millionths, decimals=2)


def _told(moment: float) -> str:
    try:
        return utc_time(round(moment))
    except (ValueError, OverflowError, OSError):
        return "the beginning of time"
