"""What it takes to judge a request by its key: one table for both servers."""

from typing import Any

import pytest

from ollama_proxy.core.access.keys import Key, KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.dispatch import decide
from ollama_proxy.core.ollama.request_fields import BodyFields
from ollama_proxy.core.plans import (
    Admit,
    Choose,
    Deny,
    Gather,
    Known,
    Plan,
    Read,
    Reading,
    Refuse,
    Relay,
    Say,
    Seek,
    Unavailable,
    Wait,
)
from tests.core.test_dispatch import (
    ASK,
    COLD,
    GENERATE,
    LISTED,
    READY,
    Body,
    FakeFleet,
    facts,
)

PLAIN, TOKENS = Rights(), Rights(tokens_per_day=1000)
SOME = Rights(models=("tiny*", "small*"))
BUDGET = Rights(budget_day=5)
OTHER = ASK.replace(b"tiny", b"secret")
SHOW, PULL, BLOB = "POST /api/show", "POST /api/pull", "POST /api/blobs/sha256:00"
SOUND = "POST /v1/audio/transcriptions"
MEGABYTES = 32 * 1024 * 1024
READ_ALL = Read(Reading.WHOLE)


def asked(
    rights: Rights, line: str, body: bytes = b"", *, complete: bool = True, **known: Any
) -> Any:
    """Return the facts of a request of a key that was not asked yet."""
    key = Key(KeyId("ciciciic"), "ci", b"", rights)
    told = facts(line, body, key=key, is_admitted=False, **known)
    encoding = known.pop("encoding", "")
    told.body = Body(body, complete=complete, encoding=encoding)
    return told


def packed(rights: Rights, line: str, encoding: str) -> Any:
    told = asked(rights, line, b"(packed)")
    told.body = Body(b"(packed)", encoding=encoding)
    return told


def admitted(plan: Plan) -> tuple[RouteClass, str]:
    assert isinstance(plan, Admit)
    return plan.work.route_class, plan.work.model


@pytest.mark.parametrize(
    ("told", "route_class", "model"),
    [
        (asked(PLAIN, GENERATE, ASK), "chat", ""),
        (asked(PLAIN, GENERATE, complete=False), "chat", ""),
        (asked(BUDGET, GENERATE, ASK[:20], complete=False), "chat", "tiny"),
        (asked(TOKENS, GENERATE, ASK), "chat", "tiny"),
        (asked(SOME, GENERATE, ASK), "chat", "tiny"),
        (asked(SOME, GENERATE, OTHER), "chat", "secret"),
        (asked(SOME, GENERATE, b""), "chat", ""),
        (asked(SOME, "POST /api/embed", ASK), "embed", "tiny"),
        (asked(SOME, PULL, b'{"name":"secret"}'), "write", "secret"),
        (asked(SOME, BLOB, complete=False), "write", ""),
        (asked(TOKENS, SOUND, complete=False), "chat", ""),
        (asked(SOME, "POST /v1/rerank", ASK, route=LISTED), "chat", "tiny"),
        (
            asked(SOME, "POST /api/copy", b'{"source":"tiny","destination":"x"}'),
            "write",
            "x",
        ),
        (
            asked(SOME, "POST /api/create", b'{"model":"tiny","from":"y"}'),
            "write",
            "y",
        ),
    ],
)
def test_a_key_admits_to_work_for_the_model_that_decides(
    told: Any, route_class: str, model: str
) -> None:
    assert admitted(decide(told, COLD)) == (route_class, model)


def test_a_limit_of_tokens_has_the_tokens_estimated() -> None:
    body = b'{"model":"tiny","prompt":"hi","options":{"num_predict":7}}'
    plan = decide(asked(TOKENS, GENERATE, body), COLD)

    assert isinstance(plan, Admit)
    assert (plan.work.prompt_tokens, plan.work.output_tokens) == (len(body) // 3 + 1, 7)


@pytest.mark.parametrize("rights", [SOME, TOKENS])
def test_a_body_that_decides_is_read_as_a_whole(rights: Rights) -> None:
    coming = asked(rights, GENERATE, ASK[:5], complete=False)
    assert decide(coming, READY) == READ_ALL
    coming.reading = Reading.WHOLE

    assert isinstance(decide(coming, READY), Unavailable)


@pytest.mark.parametrize(
    ("told", "status", "words"),
    [
        (
            asked(TOKENS, GENERATE, complete=False, reading=Reading.WHOLE),
            413,
            "longer than 32 MB",
        ),
        (asked(SOME, GENERATE, b"x" * (MEGABYTES + 1)), 413, "longer than 32 MB"),
        (packed(SOME, GENERATE, "gzip"), 415, "(gzip)"),
        (packed(TOKENS, "POST /v1/chat/completions", "zstd"), 415, "(zstd)"),
        (asked(SOME, GENERATE, b"no JSON"), 400, "can't be read"),
        (asked(SOME, SHOW, b"no JSON"), 400, "can't be read"),
        (asked(SOME, "POST /nowhere", b"{}"), 400, "names none"),
        (asked(SOME, "POST /v1/rerank", b"{}", route=LISTED), 400, "names none"),
        (asked(SOME, SOUND, b"--b"), 400, "the form"),
    ],
)
def test_what_can_not_be_judged_is_refused_in_words(
    told: Any, status: int, words: str
) -> None:
    plan = decide(told, READY)

    assert isinstance(plan, Deny)
    assert (plan.refusal.status, words in plan.refusal.message) == (status, True)


@pytest.mark.parametrize(
    "told",
    [
        asked(SOME, SHOW, b'{"model":"secret"}'),
        asked(SOME, SHOW, b'{"name":"secret","model":""}'),
        asked(SOME, SHOW, b'{"model":"tiny","Model":"secret"}'),
        asked(SOME, "GET /v1/models/secret"),
        asked(SOME, "GET /v1/models/%73ecret"),
    ],
)
@pytest.mark.parametrize("fleet", [COLD, READY])
def test_a_hidden_model_is_asked_of_nobody(told: Any, fleet: FakeFleet) -> None:
    plan = decide(told, fleet)

    assert isinstance(plan, Say)
    assert plan.what is Known.HIDDEN


def test_ollamas_own_refusals_come_before_what_is_hidden() -> None:
    told = asked(SOME, SHOW, b'{"model":"a b"}')
    plan = decide(told, COLD)

    assert isinstance(plan, Refuse)
    assert plan.refusal.status == 400


@pytest.mark.parametrize(
    ("told", "plan"),
    [
        (asked(PLAIN, "GET /api/tags"), Say(Known.COLD)),
        (asked(SOME, "GET /api/tags"), Gather("default")),
        (asked(SOME, "GET /v1/models"), Gather("default")),
        (asked(SOME, "GET /api/ps"), Gather("default")),
        (asked(SOME, "GET /api/version"), Say(Known.COLD)),
        (asked(SOME, "GET /v1/models/tiny"), Say(Known.COLD)),
        (asked(PLAIN, "GET /v1/models/secret"), Say(Known.COLD)),
        (asked(SOME, "GET /"), Say(Known.ROOT)),
        (
            asked(SOME, SHOW, b'{"model":"tiny"}'),
            Say(Known.COLD, BodyFields(model="tiny")),
        ),
    ],
)
def test_other_reads_go_on(told: Any, plan: Plan) -> None:
    assert decide(told, COLD) == plan


def test_a_list_of_a_named_pool_is_gathered_too() -> None:
    told = asked(SOME, "GET /api/tags", is_routed=False, named_pool="big")

    assert decide(told, COLD) == Choose("big")
    told.is_routed = True
    assert decide(told, FakeFleet(name="big")) == Gather("big")


def test_a_key_is_asked_before_a_pool_is_chosen() -> None:
    told = asked(SOME, GENERATE, OTHER, is_routed=False)
    assert admitted(decide(told, COLD)) == ("chat", "secret")

    coming = asked(PLAIN, GENERATE, complete=False, is_routed=False)
    assert isinstance(decide(coming, COLD), Admit)
    coming.is_admitted = True
    assert decide(coming, COLD) == Seek()


def test_once_admitted_it_is_a_request_like_any_other() -> None:
    told = asked(SOME, GENERATE, ASK)
    told.is_admitted = True

    assert isinstance(decide(told, COLD), Wait)
    assert decide(told, READY) == Relay()
