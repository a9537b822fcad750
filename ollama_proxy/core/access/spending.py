"""Compute what machine time costs, and divide it among keys. Pure.

Money is in whole millionths of the currency of the provider, so that sums are exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

MILLIONTHS: Final = 1_000_000
"""How many units of our money make one of the currency."""

_MS_PER_HOUR: Final = 3_600_000
_MOST: Final = 10**15
_LONGEST_S: Final = 366 * 86_400.0

_Payer = TypeVar("_Payer")


@dataclass(frozen=True, slots=True)
class Forecast:
    """Holds what a request may cost, before it is sent.

    - ``price``: of the dearest instance that may serve it, in millionths an hour.
    - ``wakes``: it would start an instance, which takes ``boot_s`` and then runs for
      ``idle_s`` without work.
    - ``unpriced``: why the price is unknown, as a clause; "" if it is known.
    """

    price: int = 0
    wakes: bool = False
    boot_s: float = 0.0
    idle_s: float = 0.0
    unpriced: str = ""

    def reserve(self, request_s: float) -> int:
        """Return what to reserve; ``request_s``: how long such requests take."""
        if self.wakes:
            return cost(self.price, self.boot_s + self.idle_s)
        return cost(self.price, request_s)


def price_in_millionths(per_hour: float | None) -> int | None:
    """Return a price in millionths an hour, rounded up; None: unknown."""
    if per_hour is None or not math.isfinite(per_hour) or per_hour < 0:
        return None
    return min(math.ceil(per_hour * MILLIONTHS), _MOST)


def amount_text(millionths: int, decimals: int = 0) -> str:
    """Return an amount in the currency, exact, with at least so many decimals."""
    whole, part = divmod(millionths, MILLIONTHS)
    digits = f"{part:06d}".rstrip("0").ljust(decimals, "0")
    return f"{whole}.{digits}" if digits else str(whole)


def cost(price: int, seconds: float) -> int:
    """Return what an instance costs in a time, rounded down to millionths."""
    if not seconds > 0:
        return 0
    return price * int(min(seconds, _LONGEST_S) * 1000) // _MS_PER_HOUR


def shares(
    amount: int, payers: Sequence[_Payer], turn: int
) -> list[tuple[_Payer, int]]:
    """Divide an amount equally; what is left over goes round, beginning at ``turn``."""
    if not payers:
        return []
    each, left = divmod(amount, len(payers))
    return [
        (payer, each + ((place - turn) % len(payers) < left))
        for place, payer in enumerate(payers)
    ]
