"""Moments in the notes of backends, as a new process reads them."""

import msgspec
import pytest

from ollama_proxy.backends.attempts import Attempt, Attempts
from ollama_proxy.backends.exoscale.purchase import Ledger, Placement, Purchase
from ollama_proxy.base.moments import EARLIEST
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.store.memory import MemoryNotes

ONE = LaunchId("one")
NOW = EARLIEST + 300 * 86_400.0


@pytest.mark.parametrize(
    ("noted", "read"),
    [
        (NOW - 100.0, NOW - 100.0),
        (60.0, NOW),  # of an older version, in 1970
        (NOW + 73 * 365 * 86_400.0, NOW),  # likewise, in 2099
        (None, None),
    ],
)
def test_a_call_at_a_moment_that_can_not_be_may_have_been_just_now(
    noted: float | None, read: float | None
) -> None:
    attempt = Attempt("r", attempted_at=noted, started_at=noted)
    purchase = Purchase(Placement("z", "t"), attempted_at=noted)
    attempts = Attempts(MemoryNotes({ONE: msgspec.json.encode(attempt)}), NOW)
    ledger = Ledger(MemoryNotes({ONE: msgspec.json.encode(purchase)}), NOW)
    kept, bought = attempts.get(ONE), ledger.get(ONE)

    assert kept is not None
    assert bought is not None
    assert (kept.attempted_at, kept.started_at, bought.attempted_at) == (read,) * 3
