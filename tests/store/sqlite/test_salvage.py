"""What rows and bytes of a damaged state still say."""

import contextlib

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.store.sqlite.salvage import (
    backend_in,
    doomed,
    launches_in,
    launches_under_way,
    owner_in,
    read_record,
)

LAUNCH = LaunchId("l0123456789abcdef")
READY = Record(State.READY, since=1.0, launch_id=LAUNCH, accepted=True)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_a_record_or_named_as_none(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_record(raw)
    launches_in(raw)
    owner_in(raw)
    backend_in(raw)


def test_the_bytes_of_rows_are_read_for_what_matters() -> None:
    raw = (
        b"\x02owner_id0123456789abcdef\x03backendexoscale\x00"
        + msgspec.json.encode(READY)
        + msgspec.json.encode(doomed(None, 1.0))
    )

    assert owner_in(raw) == "0123456789abcdef"
    assert backend_in(raw) == "exoscale"
    assert backend_in(raw + b"backendfly") is None
    assert launches_in(raw) == [LAUNCH]


def test_a_journal_names_the_launches_that_it_does_not_see_end() -> None:
    lines = [("a", "l1", "starting"), ("b", "l2", "ready"), ("a", "l1", "cold")]

    assert launches_under_way(lines) == {"b": "l2"}
    assert launches_under_way([(None, "l", "ready"), ("a", 7, "ready")]) == {}
