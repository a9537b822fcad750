"""Base64 is judged as Go judges it, with the place of the fault."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.ollama.go_base64 import base64_fault


@pytest.mark.parametrize(
    ("text", "wrong_at"),
    [
        ("", None),
        ("YQ==", None),
        ("Y\r\nQ=\n=\n", None),
        ("YR==", None),
        ("a", 0),
        ("aGk", 0),
        ("YQ=", 3),
        ("YQ=x", 2),
        ("YQ==x", 4),
        ("Y===", 1),
        ("=", 0),
        ("aGk=aGk=", 4),
        ("aGkh!", 4),
        ("aé", 1),
        ("aGk\n", 1),
    ],
)
def test_base64_is_judged_as_go_judges_it(text: str, wrong_at: int | None) -> None:
    assert base64_fault(text) == wrong_at


@given(st.binary())
def test_what_is_base64_is_taken(data: bytes) -> None:
    assert base64_fault(base64.b64encode(data).decode()) is None
