"""What the first bytes of answers tell."""

import pytest

from ollama_proxy.core.access.answer_start import model_at_start, prompt_at_start

START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg",'
    b'"model":"qwen3:8b","content":[],"usage":{"input_tokens":7,"output_tokens":0}}}\n\n'
)


def test_the_beginning_of_a_message_tells_its_prompt() -> None:
    assert prompt_at_start(START + b"event: ping") == 7


@pytest.mark.parametrize(
    "start",
    [
        b"",
        START[:-20],
        b'data: {"type":"ping"}',
        b'{"message":{"content":"a"},"done":false}',
        START.replace(b":7,", b":0,"),
        START.replace(b":7,", b":-7,"),
        START.replace(b":7,", b":1e99,"),
        START.replace(b'"message_start"', b'"message"'),
        b"\xff\xfe",
    ],
)
def test_other_beginnings_tell_no_prompt(start: bytes) -> None:
    assert prompt_at_start(start) is None


@pytest.mark.parametrize(
    "start",
    [
        START,
        b'{"model":"qwen3:8b","created_at":"2026","message":{"content":"a"}}\n',
        b'{"model":"qwen3:8b","response":"aaaaaaaaaa',
        b'data: {"id":"c","created":1,"model":"qwen3:8b","choices":[{}]}\n\n',
        b'event: response.created\ndata: {"response":{"background":false,'
        b'"model":"qwen3:8b"},"type":"response.created"}\n\n',
        b'{"id":"c","object":"chat.completion","model":"qwen3:8b","choices":[',
    ],
)
def test_answers_name_their_model_at_the_beginning(start: bytes) -> None:
    assert model_at_start(start) == "qwen3:8b"


@pytest.mark.parametrize(
    "start", [b"", b"{}", b'{"text":"a"}', b"\x1f\x8b", b'"model":"a"', b"[" * 5000]
)
def test_other_answers_name_no_model(start: bytes) -> None:
    assert model_at_start(start) == ""
