"""Learn how large a measured value of each model usually is: tokens, or seconds."""

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


class UsualSizes:
    """Remembers the last values of each model that was used last."""

    def __init__(self, prior: int) -> None:
        self._prior = prior
        self._sizes: dict[str, deque[int]] = {}

    def add(self, model: str, size: int) -> None:
        """Remember a value that was measured."""
        name = full_model_name(model)
        sizes = self._sizes.pop(name, None)
        if sizes is None:
            sizes = deque(maxlen=_REMEMBERED)
        self._sizes[name] = sizes
        sizes.append(max(size, 0))
        while len(self._sizes) > _MOST_MODELS:
            del self._sizes[next(iter(self._sizes))]

    def usual(self, model: str) -> int:
        """Return the value that 95 % of a model's do not exceed.

        While fewer than 20 are known, at least the prior.
        """
        sizes = self._sizes.get(full_model_name(model))
        if not sizes:
            return self._prior
        p95 = sorted(sizes)[math.ceil(_QUANTILE * len(sizes)) - 1]
        return p95 if len(sizes) >= _ENOUGH else max(self._prior, p95)
