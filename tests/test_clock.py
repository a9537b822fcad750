"""The system's clock: close to the wall's, and never backwards."""

import time

import pytest

from ollama_proxy.clock import SystemClock


def test_it_tells_the_time_since_the_epoch() -> None:
    assert SystemClock().now() == pytest.approx(time.time(), abs=1.0)  # noqa: TID251


def test_it_is_proof_against_a_wall_clock_that_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SystemClock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert 0 <= clock.now() - before < 5.0
