"""Estimate how long a launch takes, from those that were measured."""

import math
import statistics

from ollama_proxy.core.lifecycle.record import Progress, Stage
from ollama_proxy.core.ports import LaunchHistory

_REMEMBERED = 20
_SPANS = {
    Stage.CREATING: (0.0, 0.1),
    Stage.BOOTING: (0.1, 0.4),
    Stage.CONNECTING: (0.4, 0.5),
    Stage.PULLING: (0.5, 0.85),
    Stage.LOADING: (0.85, 1.0),
}


_STEPS = {
    "booting": 0.05,
    "guard": 0.15,
    "driver": 0.25,
    "toolkit": 0.5,
    "docker": 0.6,
    "ollama": 0.7,
    "model": 0.85,
}
"""How much of a boot is over when a step of it begins: rough, and in order."""


class Estimates:
    """Holds the measured launches of each offer, in memory and in the store."""

    def __init__(self, launches: LaunchHistory) -> None:
        self._launches = launches
        self._durations_s: dict[str, list[float]] = {}

    def _of(self, offer: str) -> list[float]:
        if offer not in self._durations_s:
            self._durations_s[offer] = self._launches.launch_durations_s(offer)
        return self._durations_s[offer]

    def add_launch(self, offer: str, duration_s: float) -> None:
        """Take in a launch that became ready."""
        durations_s = self._of(offer)
        durations_s.append(duration_s)
        del durations_s[:-_REMEMBERED]
        self._launches.add_launch(offer, duration_s)

    def total_s(self, offer: str) -> float | None:
        """Return the median of the offer's launches; None before the first."""
        durations_s = self._of(offer)
        return statistics.median(durations_s) if durations_s else None

    def slow_s(self, offer: str) -> float | None:
        """Return the time that 80 % of the offer's launches stayed within.

        None before the first. `core.pool_plan` uses this value.
        """
        durations_s = sorted(self._of(offer))
        if not durations_s:
            return None
        return durations_s[math.ceil(0.8 * len(durations_s)) - 1]


def remaining_s(total_s: float | None, elapsed_s: float) -> float | None:
    """Return how much longer a launch takes; at least a second while it runs."""
    return None if total_s is None else max(1.0, total_s - elapsed_s)


def overall_progress(
    progress: Progress, *, elapsed_s: float, total_s: float | None
) -> float:
    """Return how far a launch is, 0–1: coarse, but never ahead of its stage.

    Each stage has a range of its own. The position in it is the fraction that the stage
    reports; otherwise its step, or the elapsed time relative to the usual time,
    whichever is further.
    """
    begin, end = _SPANS[progress.stage]
    if progress.fraction is not None:
        return round(begin + (end - begin) * progress.fraction, 3)
    by_step = begin + (end - begin) * _STEPS.get(progress.step, 0.0)
    if total_s is None:
        return round(by_step, 3)
    return round(min(max(by_step, elapsed_s / max(total_s, 0.001)), end - 0.01), 3)
