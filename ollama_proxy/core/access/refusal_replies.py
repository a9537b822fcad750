"""Answer a request that its key refuses, in the caller's API format.

OpenAI's and Anthropic's libraries repeat a 429, after ``Retry-After`` if that is at
most 60 s, unless ``x-should-retry`` says no: a day's limit would cost each call two
minutes before its user saw the words.
"""

import math
from typing import Final

import msgspec

from ollama_proxy.core.access.days import utc_time
from ollama_proxy.core.access.decision import KeyRefusal, RefusalReason
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.error_bodies import JSON_TYPE, SPOKE, error_body
from ollama_proxy.core.ollama.routes import Family

LONGEST_RETRY_S: Final = 60

_QUOTAS = frozenset({RefusalReason.TOKENS, RefusalReason.MONEY})
_CHALLENGE = ("WWW-Authenticate", 'Bearer realm="ollama-proxy"')
_NO_RETRY = ("x-should-retry", "false")
_OPENAI = {
    RefusalReason.KEY: ("invalid_request_error", "invalid_api_key"),
    RefusalReason.RIGHT: ("permission_error", None),
    RefusalReason.BODY: ("invalid_request_error", None),
    RefusalReason.RECORD: ("server_error", None),
    RefusalReason.RATE: ("rate_limit_exceeded", "rate_limit_exceeded"),
    RefusalReason.PARALLEL: ("rate_limit_exceeded", "rate_limit_exceeded"),
    RefusalReason.TOKENS: ("insufficient_quota", "insufficient_quota"),
    RefusalReason.MONEY: ("insufficient_quota", "insufficient_quota"),
}
"""Type and code of OpenAI's error objects, as its libraries know them."""


def refusal_reply(family: Family, refusal: KeyRefusal, request_id: str = "") -> Reply:
    """Return the answer: its words are in the place where each library shows them."""
    message = _words(refusal)
    if family is Family.OPENAI:
        kind, code = _OPENAI[refusal.reason]
        told = {"message": message, "type": kind, "param": None, "code": code}
        body = msgspec.json.encode({"error": told})
    elif family is Family.NATIVE and refusal.reason is RefusalReason.KEY:
        # Of a 401 the `ollama` command shows `status` alone (api/client.go, v0.33).
        body = msgspec.json.encode({"error": message, "status": message})
    else:
        body = error_body(family, refusal.status, message, request_id=request_id)
    content = JSON_TYPE if family is Family.NATIVE else "application/json"
    headers = [("Content-Type", content), (SPOKE, refusal.reason.value)]
    return Reply(refusal.status, body, (*headers, *_hints(refusal)))


def _words(refusal: KeyRefusal) -> str:
    if refusal.resets_at is None:
        return refusal.message
    return f"{refusal.message}; the limit is free again at {_time(refusal.resets_at)}"


def _time(moment: float) -> str:
    """Return a moment in UTC, never an earlier one: a retry at it must succeed."""
    return utc_time(math.ceil(moment))


def _hints(refusal: KeyRefusal) -> list[tuple[str, str]]:
    """Return the headers that tell a program what to do next."""
    hints = []
    if refusal.reason is RefusalReason.KEY:
        hints.append(_CHALLENGE)
    if refusal.retry_after is not None:
        wait_s = min(max(1, math.ceil(refusal.retry_after)), LONGEST_RETRY_S)
        hints.append(("Retry-After", str(wait_s)))
    if refusal.reason in _QUOTAS and not refusal.ends_soon:
        hints.append(_NO_RETRY)
    return hints
