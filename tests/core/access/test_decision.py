"""Which rule of a key refuses a request, and in which words."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ollama_proxy.core.access.decision import (
    KeyRefusal,
    KeyUse,
    RefusalReason,
    decide,
    decide_route,
)
from ollama_proxy.core.access.keys import Key, KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.work import Work

NOW = datetime(2026, 11, 29, 18, 0, 0, tzinfo=UTC).timestamp()
MIDNIGHT = NOW + 6 * 3600
CHAT = Work(RouteClass.CHAT, "llama3", 10, 20)
UNUSED = KeyUse()


def key(**rights: Any) -> Key:
    return Key(KeyId("0a1b2c3d"), "ci", b"", Rights(**rights))


def refused(
    usage: KeyUse = UNUSED, work: Work = CHAT, **rights: Any
) -> KeyRefusal | None:
    return decide(key(**rights), work, usage, NOW)


def test_a_key_of_its_own_may_chat_without_limit() -> None:
    used = KeyUse(in_flight=10**6, tokens=10**12, money_day=10**12, rate_level=0.0)

    assert refused(used) is None


@pytest.mark.parametrize(
    ("rights", "work", "usage", "words"),
    [
        (
            {"routes": frozenset({RouteClass.READ})},
            CHAT,
            UNUSED,
            (403, "right", "the key 'ci' lacks the right 'chat', it may: read"),
        ),
        (
            {"models": ("gemma*", "llama3:70b")},
            CHAT,
            UNUSED,
            (
                403,
                "right",
                "the key 'ci' may not use the model 'llama3', but: gemma*, llama3:70b",
            ),
        ),
        (
            {"rpm": 60},
            CHAT,
            KeyUse(rate_level=0.9),
            (
                429,
                "rate",
                "the key 'ci' may send 60 requests a minute, and has sent them",
            ),
        ),
        (
            {"parallel": 5},
            CHAT,
            KeyUse(in_flight=5),
            (
                429,
                "parallel",
                "the key 'ci' may have 5 requests in progress, and has 5; wait until"
                " one has ended",
            ),
        ),
        (
            {"tokens_per_day": 1000},
            CHAT,
            KeyUse(tokens=1000),
            (
                429,
                "tokens",
                "the key 'ci' may use 1000 tokens a day, and 1000 are used or reserved"
                " by its requests in progress",
            ),
        ),
        (
            {"tokens_per_day": 1000},
            CHAT,
            KeyUse(tokens=1040, tokens_reserved=1020),
            (
                429,
                "tokens",
                "the key 'ci' may use 1000 tokens a day: 20 are used, and 1020 are"
                " reserved by its requests in progress; wait until one has ended",
            ),
        ),
        (
            {"budget_day": 5_000_000},
            CHAT,
            KeyUse(money_day=5_000_000),
            (
                429,
                "money",
                "the key 'ci' may spend 5.00 a day, and 5.00 are spent or reserved by"
                " its requests in progress",
            ),
        ),
        (
            {"budget_day": 5_000},
            CHAT,
            KeyUse(money_day=5_001),
            (
                429,
                "money",
                "the key 'ci' may spend 0.005 a day, and 0.005001 are spent or reserved"
                " by its requests in progress",
            ),
        ),
        (
            {"budget_month": 60_000_000},
            CHAT,
            KeyUse(money_month=60_500_000),
            (
                429,
                "money",
                "the key 'ci' may spend 60.00 a month, and 60.50 are spent or reserved"
                " by its requests in progress",
            ),
        ),
        (
            {"budget_day": 5_000_000},
            CHAT,
            KeyUse(unpriced="the offer 'a' has no price"),
            (429, "money", "the key 'ci' has a budget, and the offer 'a' has no price"),
        ),
    ],
)
def test_each_rule_says_what_it_refuses(
    rights: dict[str, Any], work: Work, usage: KeyUse, words: tuple[int, str, str]
) -> None:
    found = refused(usage, work, **rights)

    assert found is not None
    assert (found.status, found.reason.value, found.message) == words


@pytest.mark.parametrize(
    ("rights", "usage"),
    [
        ({"models": ("llama3*",)}, UNUSED),
        ({"models": ("LLAMA3",)}, UNUSED),
        ({"rpm": 60}, KeyUse(rate_level=1.0)),
        ({"parallel": 5}, KeyUse(in_flight=4)),
        ({"tokens_per_day": 1000}, KeyUse(tokens=999)),
        ({"budget_day": 5}, KeyUse(money_day=4)),
        ({"budget_month": 5}, KeyUse(money_month=4, money_day=9)),
    ],
)
def test_the_last_that_a_limit_allows_may_pass(
    rights: dict[str, Any], usage: KeyUse
) -> None:
    assert refused(usage, **rights) is None


def test_a_key_with_a_limit_of_tokens_has_four_requests_at_once() -> None:
    assert refused(KeyUse(in_flight=3), tokens_per_day=10) is None
    found = refused(KeyUse(in_flight=4), tokens_per_day=10)
    assert found is not None
    assert found.reason is RefusalReason.PARALLEL
    assert refused(KeyUse(in_flight=4), tokens_per_day=10, parallel=5) is None


def test_the_true_time_of_reset_is_told() -> None:
    tokens = refused(KeyUse(tokens=9), tokens_per_day=9)
    reserved = refused(KeyUse(tokens=9, tokens_reserved=1), tokens_per_day=9)
    month = refused(KeyUse(money_month=9, money_day=9), budget_month=9, budget_day=9)
    rate = refused(KeyUse(rate_level=0.0), rpm=6)

    assert tokens is not None
    assert (tokens.resets_at, tokens.retry_after) == (MIDNIGHT, 6 * 3600)
    assert reserved is not None
    assert (reserved.resets_at, reserved.retry_after) == (None, 1.0)
    assert month is not None
    assert month.resets_at == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert rate is not None
    assert (rate.resets_at, rate.retry_after) == (NOW + 10.0, 10.0)


@pytest.mark.parametrize("work_class", [RouteClass.READ, RouteClass.ADMIN])
def test_reads_and_orders_are_free_of_limits(work_class: RouteClass) -> None:
    used_up = KeyUse(0.0, 99, 99, 99, 99)
    rights = {"routes": frozenset(RouteClass), "rpm": 1, "parallel": 1}
    limited = {**rights, "tokens_per_day": 1, "budget_day": 1}

    assert refused(used_up, Work(work_class), **limited) is None


def test_a_limit_of_nothing_refuses_everything_and_no_wait_helps() -> None:
    found = refused(KeyUse(rate_level=0.0), rpm=0)

    assert found is not None
    assert (found.retry_after, found.resets_at) == (None, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_disabled": True}, "the key 'ci' is disabled; use another key"),
        (
            {"expires_at": NOW},
            "the key 'ci' expired at 2026-11-29T18:00:00Z; use another key",
        ),
        (  # the date that `key list` shows
            {"expires_at": NOW - 0.4},
            "the key 'ci' expired at 2026-11-29T18:00:00Z; use another key",
        ),
        (
            {"expires_at": -1e30},
            "the key 'ci' expired at the beginning of time; use another key",
        ),
    ],
)
def test_a_key_that_is_no_longer_valid_is_refused_before_all_else(
    change: dict[str, Any], words: str
) -> None:
    found = decide(replace(key(rpm=0), **change), CHAT, KeyUse(rate_level=0.0), NOW)

    assert found == KeyRefusal(401, RefusalReason.KEY, words)


def test_an_open_route_needs_a_valid_key_alone() -> None:
    nothing = key(routes=frozenset())

    assert decide_route(nothing, None, NOW) is None
    found = decide_route(nothing, RouteClass.READ, NOW)
    assert found is not None
    assert found.message == "the key 'ci' lacks the right 'read', it may: nothing"


def test_the_rules_have_one_order() -> None:
    used_up = KeyUse(0.0, 3, 9, 9, 9)
    rights: dict[str, Any] = {
        "routes": frozenset({RouteClass.READ}),
        "models": ("x",),
        "rpm": 1,
        "parallel": 1,
        "tokens_per_day": 1,
        "budget_month": 1,
    }
    reasons = []
    for name in list(rights):
        found = refused(used_up, **rights)
        assert found is not None
        reasons.append(found.reason.value)
        del rights[name]

    assert reasons == ["right", "right", "rate", "parallel", "tokens", "money"]


def test_a_glob_that_can_not_be_read_allows_nothing() -> None:
    assert refused(models=("[",)) is not None


def test_a_model_of_a_megabyte_is_not_repeated() -> None:
    found = refused(work=Work(RouteClass.CHAT, "m" * 10**6), models=("x",))

    assert found is not None
    assert len(found.message) < 500
