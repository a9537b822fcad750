"""How long a model is kept, as Go reads it."""

import time

import msgspec
import pytest

from ollama_proxy.core.ollama.durations import go_duration_s


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (b"0", 0),
        (b"0.0", 0),
        (b'"0"', 0),
        (b'"0s"', 0),
        (b'"0m"', 0),
        (b'"0h0m0s"', 0),
        (b"-1", -1),
        (b'"-1m"', -60),
        (b'"1h30m"', 5400),
        (b'"1.5s"', 1.5),
        (b"300", 300),
        (b"", None),
        (b"null", None),
        (b"true", None),
        (b'"soon"', None),
        (b"[]", None),
        (b'"\xff"', None),
        (b"9" * 401, 1e10),
        (b'"9999999h"', None),  # more nanoseconds than Go can count
    ],
)
def test_keep_alive_is_read_as_go_reads_it(raw: bytes, seconds: float | None) -> None:
    assert go_duration_s(raw) == seconds


@pytest.mark.parametrize("text", ["1" * 1000, "1" * 50_000, "1." * 500, "1h" * 50_000])
def test_a_long_keep_alive_costs_nobody_a_second(text: str) -> None:
    begun = time.process_time()

    assert go_duration_s(msgspec.json.encode(text)) is None or len(text) <= 1024
    assert time.process_time() - begun < 0.5
