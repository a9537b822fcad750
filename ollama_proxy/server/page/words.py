"""Say figures in words, as the page shows them. Pure."""

from typing import Final

_MINUTE, _HOUR, _DAY = 60, 3600, 86400

STATE_WORDS: Final = {
    "cold": "nothing runs; a request that needs a model starts it",
    "starting": "it is on its way",
    "ready": "it answers requests",
    "draining": "it takes no new requests, and stops after the present ones",
    "stopping": "it is being stopped",
    "cool-down": "its launch failed; the next one waits a while",
}
"""What each state means, for a first look at it."""


def length(seconds: float) -> str:
    """Return a length of time in its two largest units: ``4 min 20 s``."""
    whole = round(max(0.0, seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _of_two(whole, _MINUTE, "min", 1, "s")
    if whole < _DAY:
        return _of_two(whole, _HOUR, "h", _MINUTE, "min")
    return _of_two(whole, _DAY, "d", _HOUR, "h")


def price(per_hour: float | None, currency: str | None) -> str:
    """Return a price in words; "" if it is unknown."""
    if per_hour is None:
        return ""
    if not per_hour:
        return "free"
    is_of_cents = round(per_hour, 2) == per_hour
    figure = f"{per_hour:.2f}" if is_of_cents else f"{per_hour:.4g}"
    return " ".join(word for word in (figure, currency, "per hour") if word)


def percent(fraction: float) -> str:
    """Return a fraction of 1 as ``42 %``; 100 % is whole, and nothing before it is."""
    return f"{int(fraction * 100)} %"


def counted(number: int, one: str, several: str) -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else several}"


def _of_two(whole: int, large: int, name: str, small: int, rest_name: str) -> str:
    rest = whole % large // small
    return (
        f"{whole // large} {name} {rest} {rest_name}"
        if rest
        else (f"{whole // large} {name}")
    )
