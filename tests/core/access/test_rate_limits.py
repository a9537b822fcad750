"""Requests a minute: a bucket that no jump of a clock fills twice."""

import pytest

from ollama_proxy.core.access.rate_limits import Bucket, wait_for_one_s

RPM = 60


def full(rpm: int, now: float) -> Bucket:
    """Return the bucket of a key that sent nothing for a minute."""
    return Bucket(rpm, float(rpm), now)


def begun(bucket: Bucket, now: float) -> tuple[int, Bucket]:
    """Return how many requests begin at a moment, one after the other."""
    count = 0
    bucket = bucket.refilled(RPM, now)
    while bucket.level >= 1.0:
        bucket, count = bucket.without_one(), count + 1
    return count, bucket


def test_a_minutes_requests_may_begin_at_once_and_then_one_a_second() -> None:
    at_once, bucket = begun(full(RPM, 0.0), 0.0)
    later = [0, 0, 0]
    for second in range(3):
        later[second], bucket = begun(bucket, second + 1.0)

    assert (at_once, later) == (60, [1, 1, 1])


def test_a_long_rest_fills_the_bucket_once() -> None:
    _, bucket = begun(full(RPM, 0.0), 0.0)

    assert begun(bucket, 86_400.0)[0] == 60


def test_a_clock_that_goes_back_allows_nothing_more() -> None:
    _, bucket = begun(full(RPM, 1000.0), 1000.0)
    count, bucket = begun(bucket, 0.0)
    assert count == 0
    assert begun(bucket, 10.0)[0] == 0


@pytest.mark.parametrize("jump_s", [30.0, 60.0, 3600.0, 1e9])
def test_a_clock_that_jumps_to_and_fro_allows_one_jumps_requests(jump_s: float) -> None:
    _, bucket = begun(full(RPM, 0.0), 0.0)
    total = 0
    for _ in range(20):
        for now in (jump_s, 0.0):
            count, bucket = begun(bucket, now)
            total += count

    assert total <= RPM


def test_after_a_jump_to_and_fro_requests_begin_again_within_two_minutes() -> None:
    _, bucket = begun(full(RPM, 0.0), 0.0)
    _, bucket = begun(bucket, 1e9)
    total = 0
    for second in range(121):
        count, bucket = begun(bucket, float(second))
        total += count

    assert total >= 1


def test_a_lower_limit_counts_at_once() -> None:
    assert full(600, 0.0).refilled(6, 0.0).level == 6.0


def test_the_wait_is_what_the_bucket_needs() -> None:
    assert wait_for_one_s(0.5, 60) == pytest.approx(0.5)
    assert wait_for_one_s(0.0, 1) == pytest.approx(60.0)
    assert wait_for_one_s(0.0, 0) is None
