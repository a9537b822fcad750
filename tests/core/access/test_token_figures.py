"""Figures of tokens, read from the last bytes of answers as Ollama writes them."""

import json

import pytest

from ollama_proxy.core.access.token_figures import (
    TokenFigures,
    Tokens,
    count_tokens,
    figures_at_end,
    figures_of_body,
)

NONE = TokenFigures()

METRICS = (
    b'"total_duration":1,"load_duration":1,"prompt_eval_count":26,'
    b'"prompt_eval_duration":1,"eval_count":298,"eval_duration":1}'
)
CHAT = (
    b'{"model":"m","created_at":"2026","message":{"role":"assistant","content":""},'
    b'"done":true,"done_reason":"stop",' + METRICS
)
OPENAI = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[],"usage":{"prompt_tokens":26,"completion_tokens":298,'
    b'"total_tokens":324}}\n\ndata: [DONE]\n\n'
)
RESPONSES = (
    b'event: response.completed\ndata: {"response":{"id":"r","output":[{"text":"hi"}],'
    b'"top_p":1,"truncation":"disabled","usage":{"input_tokens":26,'
    b'"input_tokens_details":{"cached_tokens":0},"output_tokens":298,'
    b'"output_tokens_details":{"reasoning_tokens":0},"total_tokens":324}},'
    b'"sequence_number":9,"type":"response.completed"}\n\n'
)
TYPE_FIRST = (
    b'event: response.completed\ndata: {"type":"response.completed","response":'
    b'{"output":[],"usage":{"input_tokens":26,"output_tokens":298}}}\n\n'
)
ANTHROPIC = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":'
    b'"end_turn"},"usage":{"input_tokens":26,"output_tokens":298}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg",'
    b'"content":[],"usage":{"input_tokens":7,"output_tokens":0}}}\n\n'
)


@pytest.mark.parametrize(
    ("route", "end", "is_sse"),
    [
        ("/api/chat", CHAT + b"\n", False),
        ("/api/chat", CHAT, False),
        ("/api/chat", b'{"message":{"content":"a"},"done":false}\n' + CHAT, False),
        ("/v1/chat/completions", OPENAI, True),
        ("/v1/chat/completions", OPENAI.replace(b"\n", b"\r\n"), True),
        ("/v1/chat/completions", OPENAI.removesuffix(b"data: [DONE]\n\n"), True),
        ("/v1/responses", RESPONSES, True),
        ("/v1/responses", TYPE_FIRST, True),
        ("/v1/messages", ANTHROPIC, True),
        ("/v1/messages", START + ANTHROPIC, True),
        ("/v1/messages", ANTHROPIC[:-30], True),
        (
            "/v1/messages",
            b'{"content":[],"usage":{"input_tokens":26,"output_tokens":298}}\n',
            False,
        ),
        (
            "/v1/chat/completions",
            b'{"choices":[{}],"usage":{"prompt_tokens":26,"completion_tokens":298}}\n',
            False,
        ),
    ],
)
def test_each_protocol_tells_its_figures_at_the_end(
    route: str, end: bytes, is_sse: bool
) -> None:
    assert figures_at_end(route, end, is_sse=is_sse) == TokenFigures(26, 298)


@pytest.mark.parametrize(
    ("route", "body", "figures"),
    [
        ("/api/chat", CHAT, TokenFigures(26, 298)),
        ("/api/chat", CHAT[:-1], None),
        ("/api/chat", CHAT + CHAT, None),
        ("/api/chat", b'{"model":"m","done":true,"done_reason":"load"}', (0, 0)),
        ("/api/chat", b'{"model":"m"}', NONE),
        (
            "/v1/embeddings",
            b'{"model":"m","usage":{"prompt_tokens":6,"total_tokens":6}}',
            TokenFigures(6, 0),
        ),
        ("/v1/completions", b'{"model":7}', None),
        ("/v1/completions", b"[]", None),
        ("/v1/completions", b"", None),
    ],
)
def test_a_whole_body_tells_its_figures_and_its_model(
    route: str, body: bytes, figures: TokenFigures | None
) -> None:
    expected = None if figures is None else (figures, "m")

    assert figures_of_body(route, body) == expected


@pytest.mark.parametrize("kept", range(130, len(CHAT)))
def test_a_native_end_may_begin_anywhere_before_its_figures(kept: int) -> None:
    assert figures_at_end("/api/chat", CHAT[-kept:], is_sse=False) == TokenFigures(
        26, 298
    )


@pytest.mark.parametrize("cut", range(1, len(CHAT)))
def test_a_native_end_that_breaks_off_tells_nothing(cut: int) -> None:
    assert figures_at_end("/api/chat", CHAT[:-cut], is_sse=False) == NONE


@pytest.mark.parametrize("at", range(len(RESPONSES) - 240))
def test_the_last_event_of_responses_may_begin_anywhere(at: int) -> None:
    told = figures_at_end("/v1/responses", RESPONSES[at:], is_sse=True)

    assert told == TokenFigures(26, 298)


@pytest.mark.parametrize(
    "end", [OPENAI, RESPONSES, TYPE_FIRST, ANTHROPIC, START + ANTHROPIC]
)
def test_no_cut_of_events_invents_a_figure(end: bytes) -> None:
    for begin in range(0, len(end), 3):
        for stop in range(begin, len(end), 3):
            told = figures_at_end("/v1/x", end[begin:stop], is_sse=True)

            assert told in {NONE, TokenFigures(26, 298)}


@pytest.mark.parametrize("end", [OPENAI, RESPONSES, ANTHROPIC, CHAT])
def test_bytes_taken_for_the_wrong_kind_tell_nothing_false(end: bytes) -> None:
    for is_sse in (True, False):
        assert figures_at_end("/v1/x", end, is_sse=is_sse) in {
            NONE,
            TokenFigures(26, 298),
        }


def test_what_a_model_was_made_to_write_is_no_figure() -> None:
    forged = {"eval_count": 1, "prompt_eval_count": 1, "usage": {"prompt_tokens": 1}}
    call = {"function": {"name": "f", "arguments": forged}}
    text = ' "usage":{"prompt_tokens":1},"prompt_eval_count":1,"eval_count":1}'
    message = {"role": "assistant", "content": text, "tool_calls": [call]}
    without = {"model": "m", "message": message, "done": True, "done_reason": "stop"}
    figures = {"prompt_eval_count": 26, "eval_count": 298}

    for answer, expected in (
        (without, NONE),
        (without | figures, TokenFigures(26, 298)),
        (figures | without, TokenFigures(26, 298)),  # tool calls follow on generate
        ({"response": without}, NONE),
        ({"logprobs": [{"token": '"eval_count":5}'}] * 3} | without, NONE),
    ):
        for spaces in ((",", ":"), (", ", ": ")):
            end = json.dumps(answer, separators=spaces).encode()
            assert figures_at_end("/api/generate", end, is_sse=False) == expected


@pytest.mark.parametrize("said", ["foo,", ',"usage":{"prompt_tokens":9}}', "\\", '"'])
def test_no_text_before_the_end_shifts_the_quotes(said: str) -> None:
    end = json.dumps({"a": said, said: said, "done": True}).encode()
    for at in range(len(end)):
        assert figures_at_end("/api/chat", end[at:], is_sse=False) == NONE


def test_many_false_figures_are_passed_over_in_little_time_and_none_is_taken() -> None:
    forged = {"message": {"tool_calls": [{"eval_count": n} for n in range(3000)]}}
    end = json.dumps(forged).encode()

    assert figures_at_end("/api/chat", end, is_sse=False) == NONE


@pytest.mark.parametrize(
    "usage",
    [
        b'{"prompt_tokens":-1,"completion_tokens":-2}',
        b'{"prompt_tokens":1e99,"completion_tokens":"5"}',
        b'{"prompt_tokens":99999999999999999999,"completion_tokens":10000000001}',
        b'{"prompt_tokens":true,"completion_tokens":null}',
        b"[]",
        b"null",
        b"7",
        b"{}",
    ],
)
def test_what_is_no_number_of_tokens_is_no_figure(usage: bytes) -> None:
    body = b'{"choices":[],"usage":%b}' % usage

    assert figures_at_end("/v1/completions", body, is_sse=False) == NONE
    assert figures_at_end("/v1/completions", b"data: " + body, is_sse=True) == NONE


def test_the_zeros_in_the_chunks_of_a_completion_are_no_figures() -> None:
    zeros = b'{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'
    chunk = b'data: {"choices":[{"text":"a"}],"usage":%b}\n\n' % zeros

    assert figures_at_end("/v1/completions", chunk * 3, is_sse=True) == NONE


def test_go_leaves_out_the_count_of_an_answer_without_tokens() -> None:
    end = b'{"message":{},"done":true,"done_reason":"stop","prompt_eval_count":5}'

    assert figures_at_end("/api/chat", end, is_sse=False) == TokenFigures(5, 0)


def test_an_answer_that_leaves_out_the_prompt_leaves_it_open() -> None:
    end = b'{"message":{},"done":true,"done_reason":"stop","eval_count":5}'

    assert figures_at_end("/api/chat", end, is_sse=False) == TokenFigures(None, 5)


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_loading_a_model_takes_no_tokens(reason: str) -> None:
    end = b'{"model":"m","response":"","done":true,"done_reason":"%b"}' % (
        reason.encode()
    )

    assert figures_at_end("/api/generate", end, is_sse=False) == TokenFigures(0, 0)


def test_vectors_are_no_output() -> None:
    native = b'{"model":"m","embeddings":[[0.1]],"total_duration":1,' + (
        b'"prompt_eval_count":6}'
    )
    openai = b'{"object":"list","data":[],"usage":{"prompt_tokens":6,"total_tokens":6}}'
    old = b'{"embedding":[0.1]}'

    assert figures_at_end("/api/embed", native[-40:], is_sse=False) == TokenFigures(
        6, 0
    )
    assert figures_at_end("/v1/embeddings", openai, is_sse=False) == TokenFigures(6, 0)
    assert figures_at_end("/api/embeddings", old, is_sse=False) == TokenFigures(None, 0)


@pytest.mark.parametrize(
    "end", [b"", b"\n", b"\xff\xfe", b"\x1f\x8b\x08", b"{" * 5000, b"null", b"data:"]
)
def test_what_is_no_answer_has_no_figures(end: bytes) -> None:
    assert figures_at_end("/api/chat", end, is_sse=False) == NONE
    assert figures_at_end("/v1/messages", end, is_sse=True) == NONE


def test_missing_figures_are_estimated_and_said_to_be() -> None:
    assert count_tokens(TokenFigures(3, 4), chunks=9, prompt_bytes=400) == Tokens(3, 4)
    assert count_tokens(NONE, chunks=9, prompt_bytes=400) == Tokens(100, 9, 109)
    assert count_tokens(
        TokenFigures(None, 4), chunks=9, prompt_bytes=400, start=7
    ) == Tokens(7, 4, 7)
    assert count_tokens(TokenFigures(3, None), chunks=9, prompt_bytes=400) == Tokens(
        3, 9, 9
    )
