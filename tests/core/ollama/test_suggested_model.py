"""The model to try first: one that will be there."""

import pytest

from ollama_proxy.core.ollama.suggested_model import suggest_model

LIST = b"""{"models":[{"name":"nomic-embed-text:latest","capabilities":["embedding"]},
{"name":"a b"},{"name":"qwen3:0.6b","capabilities":["completion"]},{"name":"old"}]}"""


def test_a_configured_model_comes_first() -> None:
    assert suggest_model(["a", "b"], LIST, simulated=False) == ("a", True)


def test_else_the_first_listed_one_that_talks() -> None:
    assert suggest_model([], LIST, simulated=False) == ("qwen3:0.6b", True)


def test_the_usual_tag_is_left_out() -> None:
    tags = b'{"models":[{"name":"tiny:latest"}]}'

    assert suggest_model([], tags, simulated=False) == ("tiny", True)


def test_the_simulator_has_its_own() -> None:
    assert suggest_model([], None, simulated=True) == ("llama3.2", True)


@pytest.mark.parametrize(
    "tags",
    [
        None,
        b"",
        b"[]",
        b'{"models":null}',
        b'{"models":[]}',
        b'{"models":[{"name":"$(reboot)"},{"name":"\'x"},{"name":7}]}',
        b"\xff",
    ],
)
def test_else_one_has_to_be_pulled(tags: bytes | None) -> None:
    assert suggest_model([], tags, simulated=False) == ("llama3.2", False)
