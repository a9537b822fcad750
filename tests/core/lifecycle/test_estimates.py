"""How long a launch takes, and how far it is."""

from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.lifecycle.estimates import (
    Estimates,
    overall_progress,
    remaining_s,
)
from ollama_proxy.core.lifecycle.record import Progress, Stage
from ollama_proxy.store.memory import MemoryStore


def test_there_is_no_estimate_before_the_first_launch() -> None:
    assert Estimates(MemoryStore()).total_s("a") is None


def test_the_estimate_is_the_median_of_that_offers_launches() -> None:
    estimates = Estimates(MemoryStore())
    for duration_s in (10.0, 90.0, 20.0):
        estimates.add_launch("a", duration_s)
    estimates.add_launch("b", 500.0)

    assert estimates.total_s("a") == 20.0


def test_four_of_five_launches_are_ready_within_the_slow_estimate() -> None:
    estimates = Estimates(MemoryStore())
    assert estimates.slow_s("a") is None
    for duration_s in (50.0, 10.0, 30.0, 20.0, 40.0):
        estimates.add_launch("a", duration_s)

    assert estimates.slow_s("a") == 40.0


def test_what_was_measured_outlives_the_process() -> None:
    store = MemoryStore()
    Estimates(store).add_launch("a", 10.0)

    assert Estimates(store).total_s("a") == 10.0


def test_the_rest_is_never_less_than_a_second() -> None:
    assert remaining_s(None, 5.0) is None
    assert remaining_s(60.0, 20.0) == 40.0
    assert remaining_s(60.0, 300.0) == 1.0


def test_each_step_of_a_boot_is_further_than_the_one_before() -> None:
    steps = ["", "booting", "guard", "driver", "toolkit", "docker", "ollama", "model"]
    for total_s in (None, 540.0):
        at = [
            overall_progress(
                Progress(Stage.BOOTING, step=step), elapsed_s=1.0, total_s=total_s
            )
            for step in steps
        ]
        assert at == sorted(set(at))
        assert at[-1] < 0.4


@given(st.none() | st.floats(0, 1), st.floats(0, 1e5), st.none() | st.floats(0.1, 1e4))
def test_progress_never_leaves_the_span_of_its_stage(
    fraction: float | None, elapsed_s: float, total_s: float | None
) -> None:
    ends = []
    for stage in Stage:
        progress = Progress(stage, fraction)
        at = overall_progress(progress, elapsed_s=elapsed_s, total_s=total_s)
        assert 0.0 <= at <= 1.0
        ends.append(at)

    assert ends == sorted(ends)
