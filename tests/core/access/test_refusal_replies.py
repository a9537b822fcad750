"""What a client is told that its key refuses, in each protocol's own shape."""

import json

import pytest

from ollama_proxy.core.access.decision import KeyRefusal, RefusalReason
from ollama_proxy.core.access.refusal_replies import refusal_reply
from ollama_proxy.core.ollama.routes import Family

_NO_KEY = KeyRefusal(401, RefusalReason.KEY, "this proxy needs a key")
_NO_RIGHT = KeyRefusal(403, RefusalReason.RIGHT, "the key 'ci' may not write")
_TOO_FAST = KeyRefusal(429, RefusalReason.RATE, "over 60 requests a minute", 2.2)
_USED_UP = KeyRefusal(
    429,
    RefusalReason.TOKENS,
    "the day's tokens are used up",
    retry_after=40_000.0,
    resets_at=1_767_312_000.0,
)


def test_a_native_client_gets_the_words_and_nothing_else() -> None:
    told = refusal_reply(Family.NATIVE, _NO_RIGHT)
    assert told.status == 403
    assert json.loads(told.body) == {"error": "the key 'ci' may not write"}
    assert ("Content-Type", "application/json; charset=utf-8") in told.headers


def test_a_401_has_the_words_where_the_ollama_command_looks_for_them() -> None:
    told = refusal_reply(Family.NATIVE, _NO_KEY)
    words = "this proxy needs a key"
    assert json.loads(told.body) == {"error": words, "status": words}


@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    [
        (_NO_KEY, "invalid_request_error", "invalid_api_key"),
        (_NO_RIGHT, "permission_error", None),
        (_TOO_FAST, "rate_limit_exceeded", "rate_limit_exceeded"),
        (_USED_UP, "insufficient_quota", "insufficient_quota"),
        (KeyRefusal(413, RefusalReason.BODY, "x"), "invalid_request_error", None),
    ],
)
def test_an_openai_client_gets_the_type_and_code_of_openai(
    refusal: KeyRefusal, kind: str, code: str | None
) -> None:
    said = json.loads(refusal_reply(Family.OPENAI, refusal).body)["error"]
    assert (said["type"], said["code"], said["param"]) == (kind, code, None)
    assert said["message"].startswith(refusal.message)


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (_NO_KEY, "authentication_error"),
        (_NO_RIGHT, "permission_error"),
        (_TOO_FAST, "rate_limit_error"),
        (_USED_UP, "rate_limit_error"),
        (KeyRefusal(413, RefusalReason.BODY, "x"), "request_too_large"),
    ],
)
def test_an_anthropic_client_gets_the_type_of_anthropic(
    refusal: KeyRefusal, kind: str
) -> None:
    body = json.loads(refusal_reply(Family.ANTHROPIC, refusal, "req_1").body)
    assert body["type"] == "error"
    assert body["error"]["type"] == kind
    assert body["request_id"] == "req_1"


def test_only_a_missing_or_wrong_key_is_challenged() -> None:
    wanted = ("WWW-Authenticate", 'Bearer realm="ollama-proxy"')
    assert wanted in refusal_reply(Family.NATIVE, _NO_KEY).headers
    assert wanted not in refusal_reply(Family.NATIVE, _NO_RIGHT).headers


@pytest.mark.parametrize(
    ("wait_s", "said"), [(0.0, "1"), (2.2, "3"), (60.0, "60"), (40_000.0, "60")]
)
def test_a_retry_is_asked_for_within_1_to_60_seconds(wait_s: float, said: str) -> None:
    refusal = KeyRefusal(429, RefusalReason.RATE, "x", wait_s)
    assert dict(refusal_reply(Family.OPENAI, refusal).headers)["Retry-After"] == said


def test_a_used_up_quota_tells_its_true_reset_and_that_no_retry_helps_before() -> None:
    told = refusal_reply(Family.OPENAI, _USED_UP)
    assert b"is free again at 2026-01-02T00:00:00Z" in told.body
    assert dict(told.headers)["x-should-retry"] == "false"


def test_a_quota_that_requests_in_progress_hold_may_be_asked_for_again() -> None:
    held = KeyRefusal(429, RefusalReason.TOKENS, "x", 1.0)
    unpriced = KeyRefusal(429, RefusalReason.MONEY, "x")
    assert "x-should-retry" not in dict(refusal_reply(Family.OPENAI, held).headers)
    assert "x-should-retry" in dict(refusal_reply(Family.OPENAI, unpriced).headers)


def test_a_rate_may_be_retried() -> None:
    assert "x-should-retry" not in dict(refusal_reply(Family.OPENAI, _TOO_FAST).headers)


def test_the_reset_is_never_told_too_early() -> None:
    refusal = KeyRefusal(429, RefusalReason.RATE, "x", 1.0, 1_767_312_000.2)
    assert b"2026-01-02T00:00:01Z" in refusal_reply(Family.NATIVE, refusal).body
