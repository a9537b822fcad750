"""Estimate how much longer a launch takes, from the stages of those before it."""

import statistics
from collections.abc import Mapping

from ollama_proxy.core.ports import StageHistory

_REMEMBERED = 20


class StageEstimates:
    """Estimates the rest of a launch from past ones, by its stage."""

    def __init__(self, history: StageHistory) -> None:
        self._history = history
        self._launches: dict[str, list[dict[str, float]]] = {}

    def _of(self, offer: str) -> list[dict[str, float]]:
        if offer not in self._launches:
            self._launches[offer] = self._history.launches(offer)
        return self._launches[offer]

    def add(self, offer: str, stages: Mapping[str, float]) -> None:
        """Take in a launch that became ready. Raises `StoreError`."""
        launches = self._of(offer)
        launches.append(dict(stages))
        del launches[:-_REMEMBERED]
        self._history.add(offer, stages)

    def remaining_s(self, offer: str, stage: str, running_s: float) -> float | None:
        """Return the remaining seconds of a launch that has been at ``stage`` so long.

        The rest of this stage, up to its usual length, plus all stages after it: each
        the median of the launches that had such a stage. At least 1 s; None without any
        launch.
        """
        at = [one for one in self._of(offer) if stage in one]
        if not at:
            return None
        usual_s = statistics.median(one[stage] for one in at)
        later_s = statistics.median(_after(one, stage) for one in at)
        return max(1.0, max(0.0, usual_s - running_s) + later_s)


def _after(stages: Mapping[str, float], stage: str) -> float:
    names = list(stages)
    return sum(stages[name] for name in names[names.index(stage) + 1 :])
