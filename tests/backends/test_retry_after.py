"""How long a server wants to be left alone: seconds, a date, or nonsense."""

import pytest

from ollama_proxy.backends.retry_after import LONGEST_S, retry_after_s

WALL = 1_794_978_400.0  # Wed, 18 Nov 2026 05:06:40 GMT


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"Retry-After": "7"}, None, 7.0),
        ({"Retry-After": " 7 "}, None, 7.0),
        ({"Retry-After": "1.5"}, None, 1.5),
        ({"Retry-After": "0"}, None, 0.0),
        ({"Retry-After": "-5"}, None, 0.0),
        ({"Retry-After": "86400"}, None, LONGEST_S),
        ({"Retry-After": "9" * 400}, None, LONGEST_S),
        ({"Retry-After": "inf"}, None, LONGEST_S),
        ({"Retry-After": "nan"}, None, None),
        ({"Retry-After": "soon"}, None, None),
        ({"Retry-After": ""}, None, None),
        ({}, None, None),
        ({"Retry-After": "Wed, 18 Nov 2026 05:07:00 GMT"}, None, 20.0),
        ({"Retry-After": "Wed, 18 Nov 2026 05:00:00 GMT"}, None, 0.0),
        (
            {
                "Retry-After": "Thu, 01 Jan 2099 00:00:10 GMT",
                "Date": "Thu, 01 Jan 2099 00:00:00 GMT",
            },
            None,
            10.0,
        ),
        ({"Retry-After": "Wed, 99 Nov 2026 05:07:00 GMT"}, None, None),
        ({}, {"error": "too many", "retry_after": 12}, 12.0),
        ({"Retry-After": "3"}, {"retry_after": 12}, 3.0),
        ({}, {"retry_after": True}, None),
        ({}, {"retry_after": [1]}, None),
        ({}, ["retry_after"], None),
    ],
)
def test_what_is_said_becomes_seconds_within_bounds(
    headers: dict[str, str], body: object, expected: float | None
) -> None:
    assert retry_after_s(headers, body, WALL) == expected
