"""Average how long requests take up a slot of one machine, model by model."""

from collections.abc import Mapping
from typing import Final

MOST_MODELS: Final = 64
"""Of how many models the pace of a machine is known: those served last."""

_SETTLED_AFTER: Final = 32


class Pace:
    """Holds the mean seconds of a request, of all models and of each.

    The first measured ones weigh the same; then it is a moving average.
    """

    def __init__(self) -> None:
        self._all: tuple[float, int] = (0.0, 0)
        self._counted: dict[str, tuple[float, int]] = {}
        self._means: dict[str, float] = {}

    @property
    def service_s(self) -> float | None:
        """Return the mean over all models; None before the first request."""
        mean_s, count = self._all
        return mean_s if count else None

    @property
    def by_model(self) -> Mapping[str, float]:
        """Return the means by the full names of models, as a view."""
        return self._means

    def served(self, model: str | None, slot_s: float) -> None:
        """Take in how long a request for a model took up its slot."""
        self._all = _with(self._all, slot_s)
        if model is None:
            return
        mean = _with(self._counted.pop(model, (0.0, 0)), slot_s)
        self._counted[model], self._means[model] = mean, mean[0]
        if len(self._counted) > MOST_MODELS:
            oldest = next(iter(self._counted))
            del self._counted[oldest], self._means[oldest]


def _with(mean: tuple[float, int], slot_s: float) -> tuple[float, int]:
    mean_s, count = mean
    count = min(count + 1, _SETTLED_AFTER)
    return mean_s + (slot_s - mean_s) / count, count
