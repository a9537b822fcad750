"""The diagram has each change of state that the table allows, and no other."""

import pytest

from ollama_proxy.core.lifecycle import rules, transitions
from ollama_proxy.core.lifecycle.diagram import state_diagram
from ollama_proxy.core.lifecycle.events import Failed
from ollama_proxy.core.lifecycle.record import State


def test_every_state_is_entered_and_left() -> None:
    lines = [line.split() for line in state_diagram().splitlines()]
    edges = [(line[0], line[2].rstrip(":")) for line in lines if "-->" in line]

    names = {state.value.replace("-", "") for state in State}
    assert {source for source, _ in edges} == names | {"[*]"}
    assert {target for _, target in edges} == names


def test_a_rule_that_leads_elsewhere_is_drawn_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(transitions._TABLE, (State.STARTING, Failed), rules.stay)

    assert "starting --> stopping: Gone, Lost," in state_diagram()
