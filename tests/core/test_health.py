"""When a server counts as down, and when as back: probe by probe."""

import pytest

from ollama_proxy.core.health import Health

OK, NO, EXCUSED = "ok", "no", "excused"


def after(*probes: tuple[float, str]) -> Health:
    health = Health()
    for at, probe in probes:
        if probe == OK:
            health = health.good(at)
        elif probe == NO:
            health = health.failed(at)
        else:
            health = health.doubtful(at)
    return health


@pytest.mark.parametrize(
    ("probes", "now", "is_down"),
    [
        ([], 99.0, False),
        ([(0.0, NO), (1.0, NO), (2.0, NO)], 2.0, False),
        ([(0.0, NO), (1.0, NO), (9.9, NO)], 9.9, False),
        ([(0.0, NO), (5.0, NO), (10.0, NO)], 10.0, True),
        ([(0.0, NO), (10.0, NO)], 10.0, False),
        ([(0.0, NO), (5.0, OK), (10.0, NO), (12.0, NO)], 12.0, False),
        ([(0.0, NO), (5.0, OK), (10.0, NO), (15.0, NO), (20.0, NO)], 20.0, True),
        ([(0.0, EXCUSED), (5.0, EXCUSED), (10.0, EXCUSED)], 10.0, False),
        ([(0.0, EXCUSED), (5.0, NO), (10.0, NO)], 10.0, True),
    ],
)
def test_a_server_is_down_after_three_failures_in_ten_seconds_at_least(
    probes: list[tuple[float, str]], now: float, is_down: bool
) -> None:
    assert after(*probes).is_down(now, over_s=10.0) is is_down


@pytest.mark.parametrize(
    ("probes", "now", "is_steady"),
    [
        ([], 0.0, True),
        ([(0.0, OK)], 0.0, True),
        ([(0.0, NO)], 99.0, False),
        ([(0.0, NO), (5.0, OK)], 34.9, False),
        ([(0.0, NO), (5.0, OK)], 35.0, True),
        ([(0.0, NO), (5.0, OK), (30.0, OK)], 35.0, True),
        ([(0.0, NO), (5.0, OK), (30.0, NO), (31.0, OK)], 60.9, False),
    ],
)
def test_a_server_is_back_after_half_a_minute_of_successes(
    probes: list[tuple[float, str]], now: float, is_steady: bool
) -> None:
    assert after(*probes).is_steady(now) is is_steady
