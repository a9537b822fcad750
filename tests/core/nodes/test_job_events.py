"""How the lines of an answer become server-sent events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.nodes.job_events import (
    EventWriter,
    LongLineError,
    as_events,
    wants_events,
)


def test_each_line_is_an_event_and_empty_ones_are_none() -> None:
    assert as_events(b'{"a":1}\r\n\n  \n{"b":2}') == (
        b'data: {"a":1}\n\ndata: {"b":2}\n\n'
    )


@given(st.lists(st.sampled_from([b"{}", b"\n", b'{"a":', b"1}\n", b""]), max_size=12))
def test_the_pieces_in_which_it_comes_change_nothing(pieces: list[bytes]) -> None:
    writer = EventWriter()

    written = b"".join(map(writer.take, pieces)) + writer.end()

    assert written == as_events(b"".join(pieces))


def test_a_line_without_an_end_is_not_held() -> None:
    writer = EventWriter(longest=10)
    writer.take(b"12345678\n12345")

    with pytest.raises(LongLineError, match="exceeds 10 bytes"):
        writer.take(b"678901")


@pytest.mark.parametrize(
    ("accept", "wants"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream, */*;q=0.1", True),
        ("application/x-ndjson, text/event-stream;q=0.5", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_events_are_for_clients_that_take_no_lines(accept: str, wants: bool) -> None:
    assert wants_events(accept) is wants
