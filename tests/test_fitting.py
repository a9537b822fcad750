"""What a model wants of memory, by its size or by its name."""

import pytest

from ollama_proxy.fitting import needed_gb


@pytest.mark.parametrize(
    ("model", "least", "most"),
    [
        ("llama3.2:1b", 1.0, 1.6),
        ("llama3.1:8b", 5.0, 7.0),
        ("qwen3:0.6b", 0.7, 1.2),
        ("registry.example/team/llama:70b-instruct-q4_0", 40.0, 50.0),
    ],
)
def test_a_tag_tells_the_parameters(model: str, least: float, most: float) -> None:
    needed = needed_gb(model, None)

    assert needed is not None
    assert least < needed < most


@pytest.mark.parametrize("model", ["llama3.2", "llama3.2:latest", "x:v8beta"])
def test_a_name_without_parameters_tells_nothing(model: str) -> None:
    assert needed_gb(model, None) is None


def test_a_known_size_counts_more_than_a_tag() -> None:
    assert needed_gb("llama3.2:1b", 4_000_000_000) == pytest.approx(5.0, abs=0.2)
