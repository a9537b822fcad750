"""How many tokens are reserved for a request, before it is sent."""

import json
from typing import Any

import pytest

from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.token_estimate import (
    MEDIA_TOKENS,
    MOST_TOKENS,
    tokens_to_reserve,
    work_of,
)
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.ollama.routes import classify

CHAT, EMBED = RouteClass.CHAT, RouteClass.EMBED
PICTURE = "iVBORw0K" * 100_000
USUAL = 512


def work(body: bytes | dict[str, Any], path: str = "/api/chat") -> Work:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    needed = EMBED if "embed" in path else CHAT
    return work_of(classify("POST", path), needed, "m", raw)


def test_a_prompt_counts_a_token_for_three_bytes() -> None:
    assert work(b'{"prompt":"' + b"a" * 2987 + b'"}').prompt_tokens == 1000


@pytest.mark.parametrize(
    ("limits", "output"),
    [
        ({}, None),
        ({"options": {"num_predict": 7}}, 7),
        ({"max_tokens": 8}, 8),
        ({"max_completion_tokens": 9}, 9),
        ({"max_output_tokens": 10}, 10),
        ({"MAX_TOKENS": 8}, 8),
        ({"max_tokens": 8, "max_completion_tokens": 80}, 80),
        ({"max_tokens": -1, "options": {"num_predict": 5}}, 5),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": -(10**9)}, None),
        ({"max_tokens": 10**18}, MOST_TOKENS),
        ({"max_tokens": 10**400}, MOST_TOKENS),
        ({"max_tokens": -(10**400)}, None),
        ({"max_tokens": 5.0}, 5),
        ({"max_tokens": 5.5}, None),
        ({"max_tokens": "5"}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": [5]}, None),
        ({"max_tokens": {"max_tokens": 5}}, None),
        ({"num_predict": 5}, None),
        ({"options": [{"num_predict": 5}]}, None),
        ({"options": "num_predict"}, None),
        ({"options": {"options": {"num_predict": 5}}}, None),
        ({"messages": [{"max_tokens": 5}]}, None),
        ({"options": {"num_predict": -2}}, None),
    ],
)
def test_an_answer_has_the_largest_limit_above_zero(
    limits: dict[str, Any], output: int | None
) -> None:
    assert work({"model": "m", **limits}).output_tokens == output


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (b'{"max_tokens":NaN}', None),
        (b'{"max_tokens":1e400}', None),
        (b'{"max_tokens":1e3}', 1000),
        (b'{"max_tokens":5,"max_tokens":100}', 100),
        (b'{"max_tokens":100,"max_tokens":5}', 5),
        (b'{"max_tokens":100,"max_tokens":null}', None),
        (b'{"max_tokens":5,"MAX_TOKENS":7,"max_tokens":100}', 100),
        (b'{"options":{"num_predict":5,"num_predict":100}}', 100),
        (b'{"options":{"num_predict":100},"options":{"seed":1}}', 100),
        (b'{"options":{"num_predict":100},"Options":{"num_predict":5}}', 5),
        (b'{"options":{"num_predict":100},"options":null}', None),
        (b'{"options":{"num_predict":100}} and more', 100),
        (b'{"options":{"num_predict":100},"prompt":"\xff"}', 100),
        (b"", None),
        (b"null", None),
        (b"[1]", None),
        (b"[" * 100_000, None),
        (b'{"max_tokens":' + b"[" * 100_000, None),
    ],
)
def test_of_equal_keys_the_one_counts_that_go_takes(
    body: bytes, output: int | None
) -> None:
    assert work(body).output_tokens == output


@pytest.mark.parametrize(
    ("n", "answers"),
    [
        (3, 3),
        (0, 1),
        (-5, 1),
        ("3", 1),
        (2.0, 2),
        (10**30, MOST_TOKENS),
        (None, 1),
        ([3], 1),
    ],
)
def test_each_of_several_answers_counts(n: Any, answers: int) -> None:
    asked = work({"max_tokens": 100, "n": n}, "/v1/chat/completions")

    assert asked.answers == answers
    expected = min(asked.prompt_tokens + 100 * answers, MOST_TOKENS)
    assert tokens_to_reserve(asked, USUAL) == expected


@pytest.mark.parametrize(
    "body",
    [
        {"images": [PICTURE]},
        {"Images": [PICTURE]},
        {"messages": [{"role": "user", "images": [PICTURE]}]},
        {
            "messages": [
                {"content": [{"image_url": "data:image/png;base64," + PICTURE}]}
            ]
        },
        {"messages": [{"content": [{"image_url": {"url": "data:," + PICTURE}}]}]},
        {"messages": [{"content": [{"input_audio": {"data": PICTURE}}]}]},
        {"messages": [{"content": [{"source": {"type": "base64", "data": PICTURE}}]}]},
        {
            "messages": [
                {
                    "content": [
                        {
                            "type": "tool_result",
                            "content": [
                                {"source": {"type": "base64", "data": PICTURE}}
                            ],
                        }
                    ]
                }
            ]
        },
        {"input": [{"content": [{"image_url": "data:," + PICTURE}]}]},
        {"input": [{"output": [{"image_url": "data:," + PICTURE}]}]},
    ],
)
def test_a_picture_or_sound_counts_two_thousand_and_not_its_bytes(
    body: dict[str, Any],
) -> None:
    assert MEDIA_TOKENS < work(body).prompt_tokens < MEDIA_TOKENS + 100


def test_every_small_picture_counts() -> None:
    asked = work({"messages": [{"images": ["AAAA", "AAAA"]}, {"images": ["AAAA"]}]})

    assert 3 * MEDIA_TOKENS < asked.prompt_tokens < 3 * MEDIA_TOKENS + 100


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "data:image/png;base64," + PICTURE},
        {"messages": [{"content": "data:image/png;base64," + PICTURE}]},
        {"messages": [{"content": [{"type": "text", "text": PICTURE, "images": []}]}]},
        {"messages": [{"tool_calls": [{"function": {"images": [PICTURE]}}]}]},
        {"messages": [{"content": [{"input": {"source": {"data": PICTURE}}}]}]},
        {"messages": [{"content": [{"source": {"type": "text", "data": PICTURE}}]}]},
        {"messages": [{"content": [{"image_url": PICTURE}]}]},
        {
            "messages": [
                {
                    "content": [
                        {
                            "type": "web_search_tool_result",
                            "content": [
                                {"source": {"type": "base64", "data": PICTURE}}
                            ],
                        }
                    ]
                }
            ]
        },
        {"tools": [{"images": [PICTURE]}]},
        {"system": "x", "template": PICTURE, "images": None},
    ],
)
def test_letters_that_ollama_reads_as_text_count_as_text(body: dict[str, Any]) -> None:
    assert work(body).prompt_tokens >= len(PICTURE) / 3


@pytest.mark.parametrize("body", [{"images": 5}, {"messages": 5, "images": [5]}])
def test_a_body_of_the_wrong_shape_counts_as_text(body: dict[str, Any]) -> None:
    assert 0 < work(body).prompt_tokens < 100


def test_a_body_of_countless_members_counts_as_text() -> None:
    body = b'{"images":[' + b'"A",' * 300_000 + b'"A"]}'

    assert work(body).prompt_tokens == -(-len(body) // 3)


def test_an_embedding_has_no_answer() -> None:
    asked = work({"input": ["a" * 3000]}, "/api/embed")

    assert asked.output_tokens == 0
    assert asked.prompt_tokens > 1000


def test_a_form_with_a_sound_counts_one_sound() -> None:
    asked = work(b"--x\r\n" + b"\0" * 10_000, "/v1/audio/transcriptions")

    assert (asked.prompt_tokens, asked.output_tokens) == (MEDIA_TOKENS, None)


def test_a_change_of_models_uses_no_tokens() -> None:
    asked = work_of(classify("POST", "/api/pull"), RouteClass.WRITE, "m", b"{}")

    assert (asked.prompt_tokens, asked.output_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        (Work(CHAT), 1),
        (Work(CHAT, prompt_tokens=-5, output_tokens=-9), 1),
        (Work(CHAT, prompt_tokens=10, output_tokens=5), 15),
        (Work(CHAT, prompt_tokens=10, output_tokens=None), 10 + USUAL),
        (Work(CHAT, prompt_tokens=10, output_tokens=None, answers=2), 10 + 2 * USUAL),
        (Work(CHAT, prompt_tokens=10**18, output_tokens=10**18), MOST_TOKENS),
    ],
)
def test_at_least_one_token_is_reserved(asked: Work, tokens: int) -> None:
    assert tokens_to_reserve(asked, USUAL) == tokens
