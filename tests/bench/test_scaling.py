"""The simulation of the law of how many: it runs, and counts what it should."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.scaling.arrivals import Trace, trace_names
from bench.scaling.clairvoyant import Point, cost_at, frontier, schedules
from bench.scaling.laws import FixedLaw, OneLaw, OurLaw
from bench.scaling.machines import Scenario
from bench.scaling.rivals import KnativeLaw, RivalLaw, Window
from bench.scaling.score import Row, beats, duels
from bench.scaling.world import Law, Outcome, play

ROOT = Path(__file__).parents[2]
ONE = Trace("one", ((100.0, 10.0),))
CROWD = Trace("crowd", tuple((100.0 + number / 2.0, 10.0) for number in range(200)))
QUICK = Scenario(boot_s=60.0, slots=4)


def test_a_little_of_it_runs_by_its_command() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "bench.scaling", "--quick"],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert told.returncode == 0, told.stderr[-2000:]
    assert "**ours**" in told.stdout
    assert "clairvoyant" in told.stdout


def test_the_traces_are_small_and_have_their_source_and_licence_beside_them() -> None:
    folder = ROOT / "bench" / "scaling" / "traces"

    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_500_000
    readme = (folder / "README.md").read_text("utf-8")
    for name in trace_names():
        family = name[: name.rindex("-") + 1]
        assert family in readme or f"`{name.split('-')[0]}-*`" in readme
    assert "Apache License" in (folder / "LICENSE").read_text("utf-8")


def test_a_run_is_the_same_each_time() -> None:
    first, second = (play(CROWD, QUICK, OurLaw(QUICK)) for _ in range(2))

    assert first == second


@pytest.mark.parametrize("law", [OneLaw(), OurLaw(QUICK), KnativeLaw()])
def test_a_single_request_costs_a_boot_its_service_and_the_idle_time_out(
    law: Law,
) -> None:
    outcome = play(ONE, QUICK, law)

    assert (outcome.starts, outcome.lost) == (1, 0)
    assert outcome.machine_s == pytest.approx(60.0 + 10.0 + 1800.0, abs=60.0)
    assert 0.8 * 60.0 <= outcome.waits_s[0] <= 1.4 * 60.0 + 60.0


def test_a_fixed_machine_costs_all_the_time() -> None:
    outcome = play(ONE, QUICK, FixedLaw())

    assert outcome.machine_s == 100.0 + 7200.0
    assert outcome.waits_s == [0.0]


def test_each_client_is_served_or_has_given_up() -> None:
    outcome = play(CROWD, Scenario(boot_s=500.0, slots=1), OneLaw())

    assert len(outcome.waits_s) == len(CROWD.arrivals)
    assert 0 < outcome.lost < len(CROWD.arrivals)


def test_a_boot_that_fails_is_paid_and_tried_again_after_a_pause() -> None:
    failing = Scenario(boot_s=20.0, slots=4, fails=0.5, seed=3)
    sound = Scenario(boot_s=20.0, slots=4, seed=3)

    worse, better = (play(CROWD, one, OurLaw(one)) for one in (failing, sound))

    assert worse.starts > better.starts
    assert sum(worse.waits_s) > sum(better.waits_s)


def test_no_law_has_more_machines_than_the_limit() -> None:
    class Greedy(RivalLaw):
        tick_s = rest_tick_s = 1.0

        def desired(self, world: object) -> int:
            return 1000

    few = Scenario(boot_s=10.0, slots=1, max_instances=2, max_starting=1)
    outcome = play(ONE, few, Greedy())

    assert outcome.starts == 2


def test_a_window_averages_what_was_added_within_it() -> None:
    window = Window(100.0)
    for second in range(0, 60, 10):
        window.add(float(second), 2.0 * second)
    window.add(100.0, 100.0)

    assert window.mean(60.0) == pytest.approx((100.0 - 80.0) / 60.0)


def test_a_clairvoyant_that_lets_wait_pays_less() -> None:
    points = frontier(schedules(CROWD, 4, 16), 60.0)

    assert points[0].mean_wait_s == 0.0
    costs = [one.machine_s for one in points]
    assert costs == sorted(costs, reverse=True)
    assert len(points) > 1


def test_a_clairvoyant_serves_one_request_for_a_boot_and_its_service() -> None:
    made = schedules(ONE, 4, 16)

    assert frontier(made, 60.0) == [Point(60.0 + 10.0, 0.0)]
    assert frontier(made, 60.0, 1800.0) == [Point(60.0 + 10.0 + 1800.0, 0.0)]


def test_costs_between_two_points_lie_on_a_line() -> None:
    points = [Point(100.0, 0.0), Point(50.0, 10.0)]

    assert [cost_at(points, wait_s) for wait_s in (0.0, 5.0, 99.0)] == [100.0, 75.0, 50]


def row(law: str, machine_h: float, wait_s: float) -> Row:
    return Row("t", 60.0, 4, 0.0, law, machine_h, 1, 1, wait_s, 0.0, 0.0, 0.0)


def test_a_run_beats_another_only_if_it_is_better_on_both() -> None:
    ours = row("ours", 100.0, 10.0)

    assert beats(row("other", 90.0, 9.0), ours)
    assert not beats(row("other", 90.0, 11.0), ours)
    assert not beats(row("other", 101.0, 1.0), ours)
    assert not beats(row("other", 99.9, 9.99), ours)
    losses, won, of = duels([ours, row("other", 120.0, 20.0)], "ours")["other"]
    assert (losses, won, of) == ([], 1, 1)


def test_no_machine_is_started_before_the_first_request() -> None:
    late = Trace("late", ((86_400.0, 5.0),))

    quiet = play(late, QUICK, OurLaw(QUICK))

    assert isinstance(quiet, Outcome)
    assert quiet.starts == 1
