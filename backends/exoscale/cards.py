"""Derive the GPUs of an instance type from its name, before the API is asked. Pure.

Cards and their memory are from Exoscale's price list. The number of cards per size
follows from the prices, which are proportional to it. The API's own list has priority.
"""

from collections.abc import Sequence

_CARD_GB = {
    "gpu": 16,
    "gpu2": 16,
    "gpu3": 48,
    "gpu3080ti": 12,
    "gpua30": 24,
    "gpua5000": 24,
    "gpurtx6000pro": 96,
}
_WITHOUT = frozenset({"standard", "cpu", "memory", "storage", "colossus"})
_BY_ONES = frozenset({"gpu", "gpu2", "gpua30"})
_SIZES = ("small", "medium", "large", "huge")


def gpus_of(type_name: str) -> tuple[int, int] | None:
    """Return how many GPUs a type has, and their memory together in GB.

    None if its name does not show it.
    """
    family, _, size = type_name.strip().lower().rpartition(".")
    if not family or family in _WITHOUT:  # a bare size is one of ``standard``
        return None if "-" in size else (0, 0)
    family = family if family in _CARD_GB else f"gpu{family}"
    if family not in _CARD_GB or size not in _SIZES:
        return None
    step = _SIZES.index(size)
    count = step + 1 if family in _BY_ONES else 2**step
    return count, count * _CARD_GB[family]


def least_gpus(type_names: Sequence[str]) -> tuple[int, int] | None:
    """Return the smallest number of GPUs, and GB of memory, of several types.

    None if it is unknown for one of them, or if only some have GPUs.
    """
    known = [gpus_of(name) for name in type_names]
    told = [one for one in known if one is not None]
    if len(told) < len(known) or len({count > 0 for count, _ in told}) > 1:
        return None
    return min(told, key=lambda one: one[1])
