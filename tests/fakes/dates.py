"""Dates as clouds write them."""

from datetime import UTC, datetime


def date_of(moment: float) -> str:
    """Return a moment of a fake's clock as a date: these sort as the moments do."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
