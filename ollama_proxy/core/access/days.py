"""Name dates of UTC: the days and months of limits, and times to the second. Pure.

Moments are dates: seconds since 1970.
"""

import functools
from datetime import UTC, datetime
from typing import Final

_DAY_S: Final = 86_400
_LATEST: Final = 253_370_764_800.0  # 9999-01-01: Python can name what follows
_MONTHS: Final = 12


def utc_day(now: float) -> str:
    """Return the UTC day of a date, such as ``2026-11-29``."""
    return _day_names(now // _DAY_S)[0]


def utc_month(now: float) -> str:
    """Return the UTC month of a date, such as ``2026-11``."""
    return _day_names(now // _DAY_S)[1]


def utc_time(now: float) -> str:
    """Return a date to the second, such as ``2026-11-29T12:00:00Z``.

    Raises `ValueError`, `OverflowError` or `OSError` for one that has no name.
    """
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ}"


def next_day(now: float) -> float:
    """Return when the next UTC day begins."""
    return (now // _DAY_S + 1) * _DAY_S


def next_month(now: float) -> float:
    """Return when the next UTC month begins."""
    date = _date(now)
    years, month = divmod(date.month, _MONTHS)
    return datetime(date.year + years, month + 1, 1, tzinfo=UTC).timestamp()


@functools.lru_cache(maxsize=8)  # asked for each request; naming a day takes 3 µs
def _day_names(day: float) -> tuple[str, str]:
    date = _date(day * _DAY_S)
    return date.strftime("%Y-%m-%d"), date.strftime("%Y-%m")


def _date(now: float) -> datetime:
    return datetime.fromtimestamp(min(max(now, 0.0), _LATEST), UTC)
