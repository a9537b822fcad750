"""Texts and times are written as Go writes them."""

import pytest

from ollama_proxy.core.ollama.go_words import go_quoted, rfc3339


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ('a"b\\', r'"a\"b\\"'),
        ("\n\x01\x7f", r'"\n\x01\x7f"'),
        ("é\u00a0\u200b", '"é\\u00a0\\u200b"'),
        ("😀\U000e0001", '"😀\\U000e0001"'),
    ],
)
def test_texts_are_quoted_as_go_quotes_them(text: str, quoted: str) -> None:
    assert go_quoted(text) == quoted


@pytest.mark.parametrize("moment", [0.0, 1.5, 1795254417.25])
def test_moments_are_written_as_rfc_3339(moment: float) -> None:
    assert rfc3339(moment).endswith("Z")
    assert "T" in rfc3339(moment)
