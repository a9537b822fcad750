"""Which pool serves a request: a table, whichever server reads it."""

from dataclasses import replace
from typing import Any

import pytest

from ollama_proxy.core.dispatch import decide
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.plans import (
    Choose,
    Gather,
    Known,
    Plan,
    Reading,
    Refuse,
    Say,
    Seek,
    Unavailable,
)
from ollama_proxy.core.request_facts import Facts
from tests.core.test_dispatch import (
    COLD,
    COMPLETIONS,
    GENERATE,
    LISTED,
    READ_ALL,
    Body,
    FakeFleet,
    FakePools,
    coming,
    facts,
)


def choosing(line: str, body: bytes = b"", **known: Any) -> Facts:
    """Return what is known of a request whose pool is not chosen yet."""
    return facts(line, body, is_routed=False, **known)


def choosing_later(line: str, came: bytes = b"", **known: Any) -> Facts:
    """Return the same of a request whose body is not all here."""
    return coming(line, came, is_routed=False, **known)


BIG, SMALL = Choose("big"), Choose("small")
LAUNCH = LaunchId("launch-1")
FILES = b'{"model":"big","files":{"m.gguf":"sha256:00"}}'
BLOB = "/api/blobs/sha256:00"
FORM = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nsmall\r\n--x'
AUDIO = "POST /v1/audio/transcriptions"
ONE = FakePools(("big",), "big")
LATE = b'{"prompt":"%s","model":"small"}' % (b"x" * (32 << 20))
POOLS: list[tuple[str, Facts, FakePools, Plan | str]] = [
    ("a it names one", choosing("GET /x", named_pool="small"), FakePools(), SMALL),
    (
        "a a list of one",
        choosing("GET /api/tags", named_pool="small"),
        FakePools(),
        SMALL,
    ),
    ("a a file of one", choosing(f"POST {BLOB}", named_pool="big"), FakePools(), BIG),
    ("a it names none", choosing("GET /x", named_pool="none"), FakePools(), "400"),
    ("a there is no other", choosing("GET /x", named_pool="none"), ONE, BIG),
    (
        "a it has a model",
        choosing(GENERATE, b'{"model":"small"}', named_pool="big"),
        FakePools(),
        SMALL,
    ),
    ("b tags", choosing("GET /api/tags"), FakePools(), Gather()),
    ("b tags, head alone", choosing("HEAD /api/tags"), FakePools(), Gather()),
    ("b models", choosing("GET /v1/models"), FakePools(), Gather()),
    ("b ps", choosing("GET /api/ps"), FakePools(), Gather()),
    ("b of one pool", choosing("GET /api/tags"), ONE, BIG),
    ("c a file", choosing_later(f"POST {BLOB}"), FakePools(), SMALL),
    ("c is it there", choosing(f"HEAD {BLOB}"), FakePools(uploads="big"), BIG),
    (
        "c where files went before",
        choosing_later(f"POST {BLOB}"),
        FakePools(files={"small": LAUNCH}),
        Choose("small", LAUNCH),
    ),
    (
        "d a route that a pool answered",
        choosing("POST /v1/rerank", route=LISTED),
        FakePools(awake_pool="big", routes={"POST /v1/rerank": "small"}),
        SMALL,
    ),
    (
        "d one that is listed",
        choosing("POST /v1/rerank", route=LISTED),
        FakePools(),
        BIG,
    ),
    (
        "d listed, and one is awake",
        choosing("POST /v1/rerank", route=LISTED),
        FakePools(awake_pool="small"),
        SMALL,
    ),
    ("e unknown, awake", choosing("GET /x"), FakePools(awake_pool="small"), SMALL),
    ("e unknown, asleep", choosing_later("POST /x"), FakePools(), BIG),
    ("e a version", choosing("GET /api/version"), FakePools(awake_pool="small"), SMALL),
    ("f in the path", choosing("GET /v1/models/small%3Ax"), FakePools(), SMALL),
    ("f of no pool", choosing("GET /v1/models/other"), FakePools(), "404"),
    (
        "g it is too long",
        choosing_later(GENERATE, b" " * (32 << 20), sought=True),
        FakePools(),
        "413",
    ),
    (
        "g its model came later, with the last piece",
        choosing_later(GENERATE, LATE, sought=True),
        FakePools(),
        "413",
    ),
    ("g so it did, and that is all", choosing(GENERATE, LATE), FakePools(), "413"),
    (
        "g one pool has it all the same",
        choosing_later(GENERATE, b" " * (32 << 20), sought=True),
        ONE,
        BIG,
    ),
    ("h nothing came yet", choosing_later(GENERATE), FakePools(), Seek()),
    ("h not seen yet", choosing_later(GENERATE, b'{"mod'), FakePools(), Seek()),
    ("h a change is read", choosing_later("POST /api/pull"), FakePools(), READ_ALL),
    (
        "h too long a change",
        choosing_later("POST /api/create", b"{", reading=Reading.WHOLE),
        FakePools(),
        Seek(),
    ),
    ("h a form", choosing_later(AUDIO, FORM[:20]), FakePools(), Seek()),
    (
        "h memory is full",
        choosing_later(GENERATE, b"{", sought=True),
        FakePools(),
        "503",
    ),
    ("i none", choosing(GENERATE, b"{}"), FakePools(), BIG),
    ("i none, awake", choosing(GENERATE, b"{}"), FakePools(awake_pool="small"), SMALL),
    ("i broken", choosing(GENERATE, b"{"), FakePools(), BIG),
    ("i no object", choosing("POST /api/chat", b"[1]"), FakePools(), BIG),
    ("j an unknown one", choosing(GENERATE, b'{"model":"other"}'), FakePools(), "404"),
    ("j to show", choosing("POST /api/show", b'{"model":"other"}'), FakePools(), "404"),
    ("j to pull", choosing("POST /api/pull", b'{"model":"other"}'), FakePools(), "400"),
    (
        "j to delete",
        choosing("DELETE /api/delete", b'{"name":"x"}'),
        FakePools(),
        "404",
    ),
    ("k files elsewhere", choosing("POST /api/create", FILES), FakePools(), "400"),
    (
        "k files that it has",
        choosing("POST /api/create", FILES),
        FakePools(files={"big": LAUNCH}),
        Choose("big", LAUNCH),
    ),
    (
        "k the pool takes files",
        choosing("POST /api/create", FILES),
        FakePools(uploads="big"),
        BIG,
    ),
    (
        "k a copy for another",
        choosing("POST /api/copy", b'{"source":"big","destination":"small"}'),
        FakePools(),
        "400",
    ),
    (
        "k a copy for none",
        choosing("POST /api/copy", b'{"source":"big","destination":"x"}'),
        FakePools(),
        "400",
    ),
    (
        "l a copy",
        choosing("POST /api/copy", b'{"source":"big","destination":"big:2"}'),
        FakePools(),
        BIG,
    ),
    ("l a use", choosing(GENERATE, b'{"model":"small"}'), FakePools(), SMALL),
    (
        "l a use, seen early",
        choosing_later(GENERATE, b'{"model":"small","p'),
        FakePools(),
        SMALL,
    ),
    (
        "l keys in any case",
        choosing(COMPLETIONS, b'{"MODEL":"small"}'),
        FakePools(),
        SMALL,
    ),
    (
        "l the last counts",
        choosing(GENERATE, b'{"model":"big","model":"small"}'),
        FakePools(),
        SMALL,
    ),
    ("l to show", choosing("POST /api/show", b'{"name":"small"}'), FakePools(), SMALL),
    (
        "l to create of another",
        choosing("POST /api/create", b'{"model":"big","from":"small"}'),
        FakePools(),
        BIG,
    ),
    ("l to be heard", choosing(AUDIO, FORM), FakePools(), SMALL),
    ("l to be heard, early", choosing_later(AUDIO, FORM), FakePools(), SMALL),
    (
        "l on one instance alone",
        choosing(GENERATE, b'{"model":"big"}'),
        FakePools(created={"big big": LAUNCH}),
        Choose("big", LAUNCH),
    ),
    (
        "l on one instance alone, of one pool",
        choosing(GENERATE, b'{"model":"big"}'),
        FakePools(("big",), "big", created={"big big": LAUNCH}),
        Choose("big", LAUNCH),
    ),
]


@pytest.mark.parametrize(
    ("request_facts", "pools", "plan"),
    [row[1:] for row in POOLS],
    ids=[row[0] for row in POOLS],
)
@pytest.mark.parametrize("is_ready", [False, True])
def test_a_pool_is_chosen_before_anything_is_leased(
    request_facts: Facts, pools: FakePools, plan: Plan | str, *, is_ready: bool
) -> None:
    fleet = FakeFleet(is_ready=is_ready, pools=pools)
    before = replace(request_facts)

    decided = decide(request_facts, fleet)

    if plan == "503":
        assert isinstance(decided, Unavailable)
    elif isinstance(plan, str):
        assert isinstance(decided, Refuse)
        assert str(decided.refusal.status) == plan
    elif isinstance(decided, Choose):
        assert replace(decided, model="") == plan
    else:
        assert decided == plan
    assert request_facts == before


def test_the_choice_of_a_pool_says_for_which_model_it_is() -> None:
    for line, body, model in (
        (GENERATE, b'{"model":"small:1"}', "small:1"),
        ("DELETE /api/delete", b'{"name":"small"}', "small"),
        ("POST /api/copy", b'{"source":"big","destination":"big:2"}', "big"),
        ("GET /v1/models/big%3A7", b"", "big:7"),
        ("GET /api/version", b"", ""),
    ):
        decided = decide(choosing(line, body), FakeFleet())

        assert isinstance(decided, Choose)
        assert decided.model == model


def test_loops_and_the_root_need_no_pool() -> None:
    assert decide(choosing("GET /"), COLD) == Say(Known.ROOT)
    assert decide(choosing(GENERATE, objection="again"), COLD) == Say(Known.LOOP)


def test_a_packed_body_is_refused_where_its_model_chooses_a_pool() -> None:
    packed = choosing(COMPLETIONS, b"(packed)")
    packed.body = Body(b"(packed)", encoding="zstd")

    decided = decide(packed, FakeFleet())

    assert isinstance(decided, Refuse)
    assert decided.refusal.status == 415
    assert "big, small" in decided.refusal.message
    assert decide(packed, FakeFleet(pools=ONE)) == BIG


@pytest.mark.parametrize(
    ("request_facts", "words"),
    [
        (choosing("GET /x", named_pool="none"), ["'none'", "big, small"]),
        (
            choosing_later(GENERATE, b" " * (32 << 20), sought=True),
            ["32 MB", "big, small"],
        ),
        (
            choosing("POST /api/create", FILES),
            ["'big'", "'small'", "uploads = true", "[pools.big]"],
        ),
        (
            choosing(GENERATE, b'{"model":"other"}'),
            ["'other'", "no pool serves it", "big, small"],
        ),
        (
            choosing("POST /api/copy", b'{"source":"big","destination":"small:1"}'),
            ["'small:1'", "'small'", "'big'"],
        ),
    ],
)
def test_a_refusal_names_the_pools_and_what_to_do(
    request_facts: Facts, words: list[str]
) -> None:
    decided = decide(request_facts, FakeFleet())

    assert isinstance(decided, Refuse)
    assert [word for word in words if word not in decided.refusal.message] == []
