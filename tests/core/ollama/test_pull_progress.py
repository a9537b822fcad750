"""The lines of a pull's progress."""

import pytest

from ollama_proxy.core.ollama.pull_progress import ProgressLine, read_progress


@pytest.mark.parametrize(
    ("line", "fraction"),
    [
        (b'{"status":"pulling manifest"}', None),
        (b'{"status":"pulling a","total":3,"completed":1}', 0.333),
        (b'{"status":"pulling a","total":3}', 0.0),
        (b'{"status":"pulling a","total":3.0,"completed":6.0}', 1.0),
        (b'{"status":"pulling a","total":-1,"completed":1}', None),
    ],
)
def test_a_line_tells_how_much_of_its_layer_is_done(
    line: bytes, fraction: float | None
) -> None:
    assert read_progress(line).fraction == fraction


@pytest.mark.parametrize("line", [b"", b"[]", b'{"total":"x"}', b"\xff", b"[" * 3000])
def test_what_is_no_line_of_progress_tells_nothing(line: bytes) -> None:
    assert read_progress(line) == ProgressLine()
