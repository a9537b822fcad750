"""Parse ``Retry-After``: how long a server wants no request (RFC 9110, 10.2.3). Pure.

The value is bounded: otherwise a single wrong one could keep an instance from being
deleted for years.
"""

import email.utils
import math
from collections.abc import Mapping

LONGEST_S = 300.0
"""The longest pause that is obeyed."""


def retry_after_s(
    headers: Mapping[str, str], body: object, wall: float
) -> float | None:
    """Return the seconds until a refused call may be sent again; None if unknown.

    ``Retry-After`` has seconds or a date, which is compared with the server's own
    ``Date`` if it sends one: our clock may be wrong. Otherwise the body's
    ``retry_after`` counts. The result is between 0 and `LONGEST_S`.
    """
    said = headers.get("Retry-After", "")
    length_s = _seconds(said)
    if length_s is None and (moment := _date(said)) is not None:
        here = _date(headers.get("Date", ""))
        length_s = moment - (wall if here is None else here)
    if length_s is None and isinstance(body, Mapping):
        length_s = _seconds(body.get("retry_after"))
    return None if length_s is None else min(LONGEST_S, max(0.0, length_s))


def _seconds(said: object) -> float | None:
    if isinstance(said, bool) or not isinstance(said, int | float | str):
        return None
    try:
        length_s = float(said)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(length_s) else length_s


def _date(said: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(said).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
