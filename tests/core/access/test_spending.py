"""What machine time costs, in whole millionths, and who pays which part."""

import math

import pytest

from ollama_proxy.core.access.spending import (
    Forecast,
    cost,
    price_in_millionths,
    shares,
)


@pytest.mark.parametrize(
    ("per_hour", "millionths"),
    [
        (1.93, 1_930_000),
        (0.0, 0),
        (1e-9, 1),
        (None, None),
        (-1.0, None),
        (math.nan, None),
        (math.inf, None),
    ],
)
def test_a_price_is_rounded_up_or_unknown(
    per_hour: float | None, millionths: int | None
) -> None:
    assert price_in_millionths(per_hour) == millionths


@pytest.mark.parametrize(
    ("seconds", "amount"),
    [(3600.0, 1_930_000), (1.0, 536), (0.0, 0), (-5.0, 0), (math.nan, 0)],
)
def test_a_time_costs_its_part_of_an_hour(seconds: float, amount: int) -> None:
    assert cost(1_930_000, seconds) == amount


def test_an_endless_time_costs_a_years() -> None:
    assert cost(1_000_000, math.inf) == cost(1_000_000, 366 * 86_400.0)


@pytest.mark.parametrize("amount", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("payers", [1, 2, 3, 7])
@pytest.mark.parametrize("turn", [0, 1, 5])
def test_shares_are_equal_and_nothing_is_lost(
    amount: int, payers: int, turn: int
) -> None:
    parts = [part for _, part in shares(amount, list(range(payers)), turn)]

    assert sum(parts) == amount
    assert max(parts) - min(parts) <= 1


def test_what_is_left_over_goes_round() -> None:
    paid = [0, 0, 0]
    for turn in range(300):
        for payer, part in shares(1, [0, 1, 2], turn):
            paid[payer] += part

    assert paid == [100, 100, 100]


def test_nothing_is_shared_among_none() -> None:
    assert shares(5, [], 0) == []


def test_a_request_that_wakes_reserves_boot_and_idle_time() -> None:
    wakes = Forecast(3_600_000, True, 120.0, 600.0)

    assert wakes.reserve(60.0) == 720_000
    assert Forecast(3_600_000).reserve(60.0) == 60_000
