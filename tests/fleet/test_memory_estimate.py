"""What a model wants of memory, by its size or by its name."""

import pytest

from ollama_proxy.fleet.memory_estimate import needed_gb, weights_gb


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


@pytest.mark.parametrize(
    ("model", "least", "most"),
    [
        ("llama3.3:70b", 40.0, 44.0),  # 43 GB in the library
        ("llama3.1:8b", 4.5, 5.2),  # 4.9 GB
        ("llama3.3", 40.0, 44.0),
        ("llama3.3:latest", 40.0, 44.0),
        ("mixtral:8x7b", 25.0, 29.0),  # 26 GB
        ("llama3.1:8b-instruct-q8_0", 8.0, 9.0),  # 8.5 GB
        ("llama3.1:8b-instruct-fp16", 15.0, 17.0),  # 16 GB
        ("llama3.1:70b-instruct-q2_K", 26.0, 31.0),  # 26 GB
        ("hf.co/bartowski/Llama-3.3-70B-Instruct-GGUF:Q4_K_M", 40.0, 44.0),
        ("hf.co/x/Llama-3.3-70B-Instruct-GGUF:IQ3_XXS", 30.0, 38.0),
        ("registry.example:5000/a/b:13b", 7.0, 8.5),
    ],
)
def test_a_name_tells_the_size_on_disk(model: str, least: float, most: float) -> None:
    weights = weights_gb(model)

    assert weights is not None
    assert least < weights < most


@pytest.mark.parametrize(
    "model",
    [
        "deepseek-v3.1:671b-cloud",
        "gpt-oss:cloud",
        "gemma3n:e4b",
        "b:b",
        "",
        ":",
        "70b/",
    ],
)
def test_what_is_not_there_or_not_said_has_no_size(model: str) -> None:
    assert weights_gb(model) is None
