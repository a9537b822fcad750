"""Names of models, resolved as Ollama does."""

import pytest

from ollama_proxy.core.ollama.model_names import full_model_name


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("Tiny", "tiny:latest"),
        ("tiny:7b", "tiny:7b"),
        ("hf.co/User/repo", "hf.co/user/repo:latest"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
    ],
)
def test_names_are_resolved_with_tag_and_without_case(name: str, full: str) -> None:
    assert full_model_name(name) == full


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("Tiny", "tiny:latest"),
        ("registry.ollama.ai/library/tiny:1b", "tiny:1b"),
        ("library/tiny", "tiny:latest"),
        ("https://hf.co/A/B", "hf.co/a/b:latest"),
        ("localhost:5000/me/tiny", "localhost:5000/me/tiny:latest"),
        ("tiny:local", "tiny:latest"),
        ("gpt-oss:120b:cloud", "gpt-oss:120b-cloud"),
        ("gpt-oss:cloud", "gpt-oss:cloud"),
    ],
)
def test_names_are_resolved_as_the_store_does(name: str, full: str) -> None:
    assert full_model_name(name) == full
