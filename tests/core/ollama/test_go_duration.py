"""Lengths of time are read as Go reads them; expectations are those of Go 1.26."""

import pytest

from ollama_proxy.core.ollama.go_duration import parse_duration_ns


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("5m", 300_000_000_000),
        ("-1.5h", -5_400_000_000_000),
        ("1h30m0.5s", 5_400_500_000_000),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("1µs2us3ns", 3_003),
        ("0.3333333333333333333h", 1_200_000_000_000),
        ("9223372036854775807ns", 9_223_372_036_854_775_807),
        ("-9223372036854775808ns", -9_223_372_036_854_775_808),
        ("0000000000000000000000001s", 1_000_000_000),
    ],
)
def test_a_length_of_time(text: str, nanoseconds: int) -> None:
    assert parse_duration_ns(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 'invalid duration ""'),
        ("soon", 'invalid duration "soon"'),
        ("-", 'invalid duration "-"'),
        (".s", 'invalid duration ".s"'),
        ("5", 'missing unit in duration "5"'),
        ("1h5", 'missing unit in duration "1h5"'),
        ("5 m", 'unknown unit " m" in duration "5 m"'),
        ("5x", 'unknown unit "x" in duration "5x"'),
        ("5é", r'unknown unit "\xc3\xa9" in duration "5\xc3\xa9"'),
        ('5"', r'unknown unit "\"" in duration "5\""'),
        ("9223372036854775808ns", 'invalid duration "9223372036854775808ns"'),
        ("2562048h", 'invalid duration "2562048h"'),
        ("1h99999999999h", 'invalid duration "1h99999999999h"'),
    ],
)
def test_what_is_no_length_of_time_is_told_in_gos_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="time: ") as raised:
        parse_duration_ns(text)

    assert str(raised.value) == f"time: {words}"
