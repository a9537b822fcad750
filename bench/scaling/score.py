"""Sum up the runs: cost beside waiting, and which law beats which."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.client import quantile
from bench.scaling.machines import Scenario
from bench.scaling.world import Outcome

_NOTICED, _NOTICED_S = 0.01, 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """Holds the figures of one law in one scenario. Times of waiting are in seconds."""

    trace: str
    boot_s: float
    slots: int
    fails: float
    law: str
    machine_h: float
    starts: int
    requests: int
    wait_mean: float
    wait_p95: float
    wait_p99: float
    lost: float

    @property
    def scenario(self) -> tuple[str, float, int, float]:
        """Return what the other laws of the same scenario share with it."""
        return self.trace, self.boot_s, self.slots, self.fails


@dataclass(frozen=True, slots=True)
class Bound:
    """Holds what ours costs, as a multiple of a clairvoyant that lets wait as long.

    ``free``: it stops the last machine when it likes; ``bound_by_setting``: it keeps
    that one for the idle time-out, as the setting has it and each law here does.
    """

    trace: str
    boot_s: float
    slots: int
    free: float
    bound_by_setting: float


def row(trace: str, scenario: Scenario, law: str, outcome: Outcome) -> Row:
    """Return the figures of a run."""
    waits_s = outcome.waits_s
    return Row(
        trace=trace,
        boot_s=scenario.boot_s,
        slots=scenario.slots,
        fails=scenario.fails,
        law=law,
        machine_h=outcome.machine_s / 3600.0,
        starts=outcome.starts,
        requests=len(waits_s),
        wait_mean=statistics.fmean(waits_s),
        wait_p95=quantile(waits_s, 0.95),
        wait_p99=quantile(waits_s, 0.99),
        lost=outcome.lost / len(waits_s),
    )


def beats(one: Row, other: Row) -> bool:
    """Tell whether a run is cheaper and waits less, by more than a hundredth.

    Less than a tenth of a second of mean waiting is no difference.
    """
    less_s = max(_NOTICED_S, _NOTICED * other.wait_mean)
    return (
        one.machine_h < other.machine_h * (1.0 - _NOTICED)
        and one.wait_mean < other.wait_mean - less_s
    )


def duels(rows: Sequence[Row], own: str) -> dict[str, tuple[list[Row], int, int]]:
    """Return by rival: its runs that beat ours, how many ours beats, and all."""
    ours = {one.scenario: one for one in rows if one.law == own}
    found: dict[str, tuple[list[Row], int, int]] = {}
    for law in dict.fromkeys(one.law for one in rows if one.law != own):
        theirs = [one for one in rows if one.law == law]
        found[law] = (
            [one for one in theirs if beats(one, ours[one.scenario])],
            sum(beats(ours[one.scenario], one) for one in theirs),
            len(theirs),
        )
    return found


@dataclass(frozen=True, slots=True)
class Total:
    """Sums up the runs of a law over traces. Waiting: over all their requests."""

    machine_h: float
    starts: int
    wait_mean: float
    wait_p95: float
    wait_p99: float
    lost: float


def total(rows: Iterable[Row]) -> Total:
    """Return the sum of some runs; p95 and p99 are the means of the traces'."""
    every = [*rows]
    requests = sum(one.requests for one in every)
    return Total(
        machine_h=sum(one.machine_h for one in every),
        starts=sum(one.starts for one in every),
        wait_mean=sum(one.wait_mean * one.requests for one in every) / requests,
        wait_p95=statistics.fmean(one.wait_p95 for one in every),
        wait_p99=statistics.fmean(one.wait_p99 for one in every),
        lost=sum(one.lost * one.requests for one in every) / requests,
    )


def geometric_mean(values: Iterable[float]) -> float:
    """Return the mean of ratios."""
    return math.exp(statistics.fmean(math.log(value) for value in values))
