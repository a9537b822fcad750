"""Learn how long the answers of each model usually are, in tokens."""

import math
from collections import deque
from typing import Final

from ollama_proxy.core.ollama.model_names import full_model_name

PRIOR_TOKENS: Final = 512
"""The length that counts before a model's answers are known."""

_REMEMBERED: Final = 100
_ENOUGH: Final = 20
_MOST_MODELS: Final = 256
_QUANTILE: Final = 0.95


class OutputSizes:
    """Remembers the last measured answers of each model that was used last."""

    def __init__(self) -> None:
        self._sizes: dict[str, deque[int]] = {}

    def add(self, model: str, tokens: int) -> None:
        """Remember how many tokens an answer had, as the instance counted them."""
        name = full_model_name(model)
        sizes = self._sizes.pop(name, None)
        if sizes is None:
            sizes = deque(maxlen=_REMEMBERED)
        self._sizes[name] = sizes
        sizes.append(max(tokens, 0))
        while len(self._sizes) > _MOST_MODELS:
            del self._sizes[next(iter(self._sizes))]

    def usual(self, model: str) -> int:
        """Return the length that 95 % of a model's answers do not exceed.

        While fewer than 20 are known, at least 512.
        """
        sizes = self._sizes.get(full_model_name(model))
        if not sizes:
            return PRIOR_TOKENS
        p95 = sorted(sizes)[math.ceil(_QUANTILE * len(sizes)) - 1]
        return p95 if len(sizes) >= _ENOUGH else max(PRIOR_TOKENS, p95)
