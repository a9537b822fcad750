"""The templates of what runs on an instance."""

import pytest
from jinja2 import UndefinedError

from ollama_proxy.fleet.templates import ollama_environment, render


def test_the_environment_of_ollama_on_an_instance() -> None:
    assert ollama_environment(host="127.0.0.1", port=5) == {
        "OLLAMA_HOST": "127.0.0.1:5",
        "OLLAMA_KEEP_ALIVE": "-1",
    }


def test_a_models_folder_is_named_if_there_is_one() -> None:
    environment = ollama_environment(host="127.0.0.1", port=5, models_dir="/models")

    assert environment["OLLAMA_MODELS"] == "/models"


def test_a_gap_that_is_not_filled_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'port' is undefined"):
        render("ollama.env", host="h", models_dir=None)
