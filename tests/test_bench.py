"""The benchmark runs, notices what is wrong, and sums up what it measured."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.client import quantile
from bench.report import BUDGETS, Results, is_met, summary

ROOT = Path(__file__).parents[1]


def test_a_little_of_everything_runs_through_the_proxy() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "bench", "--smoke", "--only", "ours"],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-2000:]
    measured = [line for line in told.stdout.splitlines() if line.startswith("1 ours")]
    assert len(measured) == 8  # tokens, small, crowd, open, large, asleep, ready, keyed


def results(**figures: tuple[list[float], list[float]]) -> Results:
    made = Results()
    for name, (ours, nginx) in figures.items():
        for own, other in zip(ours, nginx, strict=True):
            made.add("ours", {name: own})
            made.add("nginx", {name: other})
    return made


def test_ratios_are_taken_run_by_run() -> None:
    measured = results(cpu_us_per_token=([10.0, 30.0], [10.0, 20.0]))

    assert measured.ratios("cpu_us_per_token", "ours", "nginx") == [1.0, 1.5]


@pytest.mark.parametrize(
    ("ours", "nginx", "kept"),
    [
        ([11.0] * 3, [10.0] * 3, True),
        ([12.0] * 3, [10.0] * 3, False),
        ([99.0, 11.0, 11.0], [10.0] * 3, True),
    ],
)
def test_a_promise_is_kept_if_the_median_keeps_it(
    ours: list[float], nginx: list[float], *, kept: bool
) -> None:
    budget = next(one for one in BUDGETS if one.figure == "cpu_us_per_token")

    assert is_met(budget, results(cpu_us_per_token=(ours, nginx))) is kept


def test_what_was_not_measured_is_not_called_kept() -> None:
    assert all(is_met(budget, Results()) is None for budget in BUDGETS)
    assert summary(Results()).count("not measured") == len(BUDGETS)


def test_without_nginx_there_is_no_ratio_to_keep() -> None:
    alone = Results()
    alone.add("ours", {"cpu_us_per_token": 1.0, "idle_mib": 60.0})
    met = {budget.figure: is_met(budget, alone) for budget in BUDGETS}

    assert met["cpu_us_per_token"] is False
    assert met["idle_mib"] is True


def test_a_quantile_is_one_of_the_samples() -> None:
    samples = [5.0, 1.0, 4.0, 2.0, 3.0]

    assert quantile(samples, 0.5) == 3.0
    assert quantile(samples, 0.99) == 5.0
    assert math.isclose(quantile([7.0], 0.0), 7.0)
