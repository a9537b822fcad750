"""Days and months of UTC, and when the next begin."""

from datetime import UTC, datetime

import pytest

from ollama_proxy.core.access.days import next_day, next_month, utc_day, utc_month


def at(year: int, month: int, day: int, hour: int = 0) -> float:
    return datetime(year, month, day, hour, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "day", "day_ends", "month_ends"),
    [
        (at(2026, 11, 29, 17), "2026-11-29", at(2026, 11, 30), at(2026, 12, 1)),
        (at(2026, 11, 30), "2026-11-30", at(2026, 12, 1), at(2026, 12, 1)),
        (at(2026, 12, 31, 23), "2026-12-31", at(2027, 1, 1), at(2027, 1, 1)),
        (at(2028, 2, 28, 1), "2028-02-28", at(2028, 2, 29), at(2028, 3, 1)),
    ],
)
def test_a_date_is_in_one_day_and_one_month(
    now: float, day: str, day_ends: float, month_ends: float
) -> None:
    assert (utc_day(now), utc_month(now)) == (day, day[:7])
    assert (next_day(now), next_month(now)) == (day_ends, month_ends)


@pytest.mark.parametrize("now", [-1e18, 0.0, 253_402_300_799.0, 1e300])
def test_a_date_that_is_none_names_a_day_too(now: float) -> None:
    assert len(utc_day(now)) == len("2026-11-29")
    assert len(utc_month(now)) == len("2026-11")
    assert next_month(now) >= 0
