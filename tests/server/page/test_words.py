"""Figures in words."""

import pytest

from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.server.page.words import STATE_WORDS, length, percent, price


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3.0, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (260.0, "4 min 20 s"),
        (3600.0, "1 h"),
        (3660.0, "1 h 1 min"),
        (90000.0, "1 d 1 h"),
        (1e9, "11574 d 1 h"),
    ],
)
def test_a_length_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert length(seconds) == words


def test_only_what_is_done_is_a_hundred_percent() -> None:
    assert [percent(one) for one in (0.0, 0.999, 1.0)] == ["0 %", "99 %", "100 %"]


def test_a_price_without_a_currency_names_none() -> None:
    assert price(0.5, None) == "0.50 per hour"


def test_a_price_below_a_cent_is_told_in_full() -> None:
    assert price(0.00417, "EUR") == "0.00417 EUR per hour"


def test_every_state_is_explained() -> None:
    assert set(STATE_WORDS) == {one.value for one in State}
