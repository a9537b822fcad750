"""Scripts of events that happen to an instance, and what becomes of its record."""

from collections.abc import Sequence
from typing import TypeAlias

from hypothesis import strategies as st

from ollama_proxy.base.errors import IllegalTransition
from ollama_proxy.core.lifecycle.events import Event
from ollama_proxy.core.lifecycle.record import Policy, Record
from ollama_proxy.core.lifecycle.transitions import step

Script: TypeAlias = list[tuple[Event, float]]
"""Events, each with the seconds that pass before it."""


def scripts_of(events: Sequence[Event]) -> st.SearchStrategy[Script]:
    return st.lists(st.tuples(st.sampled_from(events), st.floats(0, 700)), max_size=60)


def play(script: Script, policy: Policy) -> list[tuple[float, Record]]:
    """Run a script from cold, skipping what can't happen; return each moment."""
    record, now = Record(), 0.0
    seen = [(now, record)]
    for event, pause_s in script:
        now += pause_s
        try:
            record = step(record, event, now=now, policy=policy).record
        except IllegalTransition:
            continue
        seen.append((now, record))
    return seen
