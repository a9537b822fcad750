"""Whether a request for an unknown model may start an instance."""

import json
from dataclasses import replace

import pytest

from ollama_proxy.core.ollama.model_fate import (
    WAKES_PER_HOUR,
    Fate,
    NameFacts,
    WakeRule,
    fate_of,
    sought_name,
)
from ollama_proxy.core.ollama.request_fields import read_fields
from ollama_proxy.core.ollama.routes import classify

KEPT = NameFacts(
    known=False, absent=False, listed=True, starts_empty=False, launches=True, wakes=0
)


@pytest.mark.parametrize(
    ("rule", "facts", "fate"),
    [
        ("auto", KEPT, Fate.WAKE),
        ("auto", replace(KEPT, known=True, starts_empty=True), Fate.PASS),
        ("auto", replace(KEPT, listed=False), Fate.PASS),
        ("auto", replace(KEPT, listed=False, starts_empty=True), Fate.PASS),
        ("auto", replace(KEPT, starts_empty=True), Fate.ABSENT),
        ("auto", replace(KEPT, starts_empty=True, launches=False), Fate.ABSENT),
        ("auto", replace(KEPT, absent=True), Fate.ABSENT),
        ("auto", replace(KEPT, launches=False), Fate.JOIN),
        ("auto", replace(KEPT, wakes=WAKES_PER_HOUR - 1), Fate.WAKE),
        ("auto", replace(KEPT, wakes=WAKES_PER_HOUR), Fate.LATER),
        ("true", replace(KEPT, absent=True, starts_empty=True), Fate.PASS),
        ("false", KEPT, Fate.ABSENT),
        ("false", replace(KEPT, listed=False), Fate.ABSENT),
        ("false", replace(KEPT, known=True), Fate.PASS),
    ],
)
def test_a_name_wakes_only_if_its_model_may_be_there(
    rule: str, facts: NameFacts, fate: Fate
) -> None:
    assert fate_of(WakeRule(rule), facts) is fate


@pytest.mark.parametrize(
    ("method", "path", "body", "name"),
    [
        ("POST", "/api/chat", {"model": "a"}, "a"),
        ("POST", "/v1/responses", {"model": "a"}, "a"),
        ("POST", "/api/copy", {"source": "a", "destination": "b"}, "a"),
        ("POST", "/api/copy", {"source": 5}, ""),
        ("DELETE", "/api/delete", {"name": "a"}, "a"),
        ("POST", "/api/push", {"model": "a"}, "a"),
        ("POST", "/api/pull", {"model": "a"}, ""),
        ("POST", "/api/create", {"model": "a", "from": "b"}, ""),
        ("POST", "/api/show", {"model": "a"}, ""),
    ],
)
def test_only_what_needs_a_model_to_be_there_seeks_one(
    method: str, path: str, body: object, name: str
) -> None:
    fields = read_fields(json.dumps(body).encode())

    assert sought_name(classify(method, path), fields) == name
