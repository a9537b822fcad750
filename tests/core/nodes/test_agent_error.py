import pytest

from ollama_proxy.core.nodes.agent_error import said_in


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": "no runner"}', "no runner"),
        (b'{"detail": "Ollama is away"}', "Ollama is away"),
        (b'{"error": "no runner", "detail": "of the agent"}', "no runner"),
        (b'{"detail": [{"msg": "a"}, {"msg": "b", "loc": ["body"]}]}', "a; b"),
        (b'{"detail": {"msg": "a"}}', ""),
        (b'{"detail": 5}', ""),
        (b"<html>", ""),
        (b"", ""),
        (b'{"detail": "' + b"a" * 1000 + b'"}', "a" * 200),
    ],
)
def test_an_error_is_read_in_the_words_of_ollama_or_of_the_agent(
    body: bytes, words: str
) -> None:
    assert said_in(body) == words
