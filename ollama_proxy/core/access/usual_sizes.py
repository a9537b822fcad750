"""Learn how large a measured value of each model usually is: tokens, or seconds."""

import bisect
import math
from collections import deque
from typing import Final

from ollama_proxy.core.ollama.model_names import full_model_name

PRIOR_TOKENS: Final = 512
"""The length of an answer before those of a model are known."""

PRIOR_S: Final = 60
"""How long a request takes before those for a model are known."""

_REMEMBERED: Final = 100
_ENOUGH: Final = 20
_MOST_MODELS: Final = 256
_QUANTILE: Final = 0.95


class _Sizes:
    """Holds the last values of one model: by their arrival, and by their size."""

    __slots__ = ("_arrived", "_sorted")

    def __init__(self) -> None:
        self._arrived: deque[int] = deque()
        self._sorted: list[int] = []

    def add(self, size: int) -> None:
        """Remember a value, and forget the oldest if there are too many."""
        if len(self._arrived) == _REMEMBERED:
            del self._sorted[bisect.bisect_left(self._sorted, self._arrived.popleft())]
        self._arrived.append(size)
        bisect.insort(self._sorted, size)

    def usual(self, prior: int) -> int:
        """Return the value that 95 % do not exceed."""
        count = len(self._sorted)
        p95 = self._sorted[math.ceil(_QUANTILE * count) - 1]
        return p95 if count >= _ENOUGH else max(prior, p95)


class UsualSizes:
    """Remembers the last values of each model that was used last."""

    def __init__(self, prior: int) -> None:
        self._prior = prior
        self._sizes: dict[str, _Sizes] = {}

    def add(self, model: str, size: int) -> None:
        """Remember a value that was measured."""
        name = full_model_name(model)
        sizes = self._sizes.pop(name, None)
        if sizes is None:
            sizes = _Sizes()
        self._sizes[name] = sizes
        sizes.add(max(size, 0))
        while len(self._sizes) > _MOST_MODELS:
            del self._sizes[next(iter(self._sizes))]

    def usual(self, model: str) -> int:
        """Return the value that 95 % of a model's do not exceed.

        While fewer than 20 are known, at least the prior.
        """
        sizes = self._sizes.get(full_model_name(model))
        return self._prior if sizes is None else sizes.usual(self._prior)
