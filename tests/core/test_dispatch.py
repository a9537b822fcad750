"""What becomes of a request: one table, whichever server reads it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ollama_proxy.core.dispatch import decide
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ollama.model_fate import Fate
from ollama_proxy.core.ollama.native_refusals import Refusal
from ollama_proxy.core.ollama.request_fields import BodyFields, Need, read_fields
from ollama_proxy.core.ollama.routes import ColdAnswer, Family, classify
from ollama_proxy.core.plans import (
    Gather,
    Known,
    Observe,
    Plan,
    Read,
    Reading,
    Refuse,
    Relay,
    Say,
    Unavailable,
    Wait,
)
from ollama_proxy.core.request_facts import Facts, PoolChoices


@dataclass
class Body:
    """A body of which ``head`` is here."""

    head: bytes = b""
    complete: bool = True
    encoding: str = ""


@dataclass
class FakePools:
    """Two pools: ``big`` has the models that begin so, ``small`` what begins so."""

    names: Sequence[str] = ("big", "small")
    uploads: str = "small"
    awake_pool: str | None = None
    routes: dict[str, str] = field(default_factory=dict)
    created: dict[str, LaunchId] = field(default_factory=dict)
    files: dict[str, LaunchId] = field(default_factory=dict)

    def of_model(self, model: str) -> str | None:
        return next((name for name in self.names if model.startswith(name)), None)

    def of_route(self, method: str, path: str) -> str | None:
        return self.routes.get(f"{method} {path}")

    def awake(self) -> str | None:
        return self.awake_pool

    def instance_of(self, pool: str, model: str) -> LaunchId | None:
        return self.created.get(f"{pool} {model}")

    def instance_with(self, pool: str, digests: Collection[str]) -> LaunchId | None:
        del digests
        return self.files.get(pool)


@dataclass
class FakeFleet:
    """Says what a test has it say; ``ignored`` is a program that never wakes."""

    is_ready: bool = False
    name: str = "default"
    pools: PoolChoices = field(default_factory=FakePools)
    has_several: bool = False
    version: str = ""
    read_limit_s: float = 5.0
    spared: frozenset[Need] = frozenset()
    reads_bodies: bool = False
    ignores_some: bool = True
    fates: dict[str, Fate] = field(default_factory=dict)
    ignored: str = "uptime"

    def ignores(
        self, agent: str, path: str, family: Family, fields: BodyFields | None
    ) -> bool:
        del path, family, fields
        return agent == self.ignored

    def fate(self, model: str) -> Fate:
        return self.fates.get(model, Fate.PASS)

    def next_look_s(self) -> float:
        return 1200.0


COLD, READY = FakeFleet(), FakeFleet(is_ready=True)
ASK = b'{"model":"tiny","prompt":"hi"}'
CHAT = b'{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":5}'
CLOUD = CHAT.replace(b"tiny", b"big:cloud")
UNLOAD = b'{"model":"tiny","keep_alive":0}'
LOAD = b'{"model":"tiny"}'
NAMED = read_fields(ASK)
SPARES = FakeFleet(spared=frozenset({Need.LOAD, Need.CLOUD}))
READ_ALL, READ_SMALL = Read(Reading.WHOLE), Read(Reading.SMALL)
SPARES_READY = replace(SPARES, is_ready=True)


def facts(line: str, body: bytes = b"", **known: Any) -> Facts:
    """Return what is known of a request, from its method and path."""
    method, path = line.split()
    route = known.pop("route", classify(method, path))
    return Facts(method, path, known.pop("agent", ""), route, Body(body), **known)


def coming(line: str, came: bytes = b"", **known: Any) -> Facts:
    """Return what is known of a request whose body is not all here."""
    request = facts(line, came, **known)
    request.body = Body(came, complete=False)
    return request


def unlike(name: str, status: int = 404, family: str = "native") -> Refuse:
    """Return the plan that says that a model is not there."""
    is_native = family == "native"
    return Refuse(
        Refusal(status, name, is_translated=not is_native, has_charset=is_native)
    )


LISTED = replace(
    classify("POST", "/v1/rerank"), asleep=ColdAnswer.WAKE
)  # as the settings may list it
FAILED: dict[str, Any] = {"tried": True, "problem": "refused"}
LOST: dict[str, Any] = {**FAILED, "may_be_done": True}
SLEEPER: dict[str, Any] = {"may_wake": False}
COLD_SAID = Say(Known.COLD)
GENERATE, COMPLETIONS = "POST /api/generate", "POST /v1/chat/completions"

TABLE: list[tuple[str, Facts, FakeFleet, Plan | str]] = [
    ("1 a loop", facts(GENERATE, ASK, objection="again"), READY, Say(Known.LOOP)),
    ("1 a loop of a read", facts("GET /", objection="x"), COLD, Say(Known.LOOP)),
    ("2 the root", facts("GET /"), COLD, Say(Known.ROOT)),
    ("2 the root of a ready one", facts("HEAD /"), READY, Say(Known.ROOT)),
    ("4 a read's body", coming("POST /api/show"), READY, READ_ALL),
    ("4 an unknown one's", coming("POST /nowhere"), READY, READ_SMALL),
    ("4 a use's", coming(GENERATE), READY, READ_SMALL),
    ("4 a change's", coming("POST /api/pull"), READY, READ_ALL),
    ("4 an upload's", coming("POST /api/blobs/sha256:00"), READY, READ_SMALL),
    ("6 a read, ready", facts("GET /api/tags"), READY, Observe(5.0)),
    ("6 ollama.com's", facts("POST /api/me"), READY, Observe(None)),
    ("6 an unknown route", facts("GET /nowhere"), READY, Observe(None)),
    (
        "6 an unknown upload",
        coming("POST /nowhere", reading=Reading.SMALL),
        READY,
        Observe(None),
    ),
    (
        "6 too long a read",
        coming("POST /api/tags/x", reading=Reading.SMALL),
        READY,
        Observe(None),
    ),
    (
        "9 too long a show",
        coming("POST /api/show", reading=Reading.WHOLE),
        READY,
        Say(Known.COLD),
    ),
    ("9 an unknown one of ours", facts("GET /-/nope"), READY, Say(Known.COLD)),
    (
        "7 an unknown one is lost",
        facts("POST /nowhere", **LOST),
        READY,
        Unavailable("refused"),
    ),
    ("9 an unknown one failed", facts("POST /x", **FAILED), READY, Say(Known.COLD)),
    ("9 a read failed", facts("GET /api/tags", **LOST), READY, Say(Known.COLD)),
    ("8 a broken show", facts("POST /api/show", b"{"), COLD, "400"),
    (
        "9 a show",
        facts("POST /api/show", LOAD),
        COLD,
        Say(Known.COLD, read_fields(LOAD)),
    ),
    ("9 a read, cold", facts("GET /api/tags"), COLD, Say(Known.COLD)),
    ("10 an unload, ready", facts(GENERATE, UNLOAD), READY, Observe(None)),
    ("10 a load that is spared", facts(GENERATE, LOAD), SPARES_READY, Observe(None)),
    ("10 a cloud model", facts(COMPLETIONS, CLOUD), SPARES_READY, Observe(None)),
    ("10 a health check", facts(GENERATE, ASK, agent="uptime"), READY, Observe(None)),
    ("11 a load that counts", facts(GENERATE, LOAD), READY, Relay()),
    ("11 a use, ready", facts(GENERATE, ASK), READY, Relay()),
    ("11 broken JSON, ready", facts(GENERATE, b"{"), READY, Relay()),
    ("11 a change, ready", facts("POST /api/pull", LOAD), READY, Relay()),
    (
        "11 a health check that changes",
        facts("POST /api/pull", LOAD, agent="uptime"),
        READY,
        Relay(),
    ),
    (
        "11 an upload, ready",
        coming("POST /api/blobs/sha256:00", reading=Reading.SMALL),
        READY,
        Relay(),
    ),
    ("12 a use is lost", facts(GENERATE, ASK, **LOST), READY, Unavailable("refused")),
    (
        "12 half an upload failed",
        coming("POST /api/pull", reading=Reading.WHOLE, **FAILED),
        READY,
        Unavailable("refused"),
    ),
    ("13 a long use, cold", coming(GENERATE, reading=Reading.SMALL), COLD, READ_ALL),
    ("14 broken JSON, cold", facts(GENERATE, b"{"), COLD, "400"),
    ("14 no digest", facts("POST /api/blobs/x"), COLD, "400"),
    ("14 no model", facts(GENERATE, b"{}"), COLD, unlike("model '' not found")),
    ("14 no model to chat", facts("POST /api/chat", b"{}"), COLD, "400"),
    ("14 an unload", facts(GENERATE, UNLOAD), COLD, Say(Known.DONE, None)),
    (
        "14 an unload of nothing",
        facts(GENERATE, UNLOAD),
        FakeFleet(fates={"tiny": Fate.ABSENT}),
        unlike("model 'tiny' not found"),
    ),
    ("14 a load that is spared", facts(GENERATE, LOAD), SPARES, Say(Known.DONE, None)),
    ("14 a cloud model", facts(COMPLETIONS, CLOUD), SPARES, "503"),
    (
        "14 a model that is not there",
        facts(GENERATE, ASK),
        FakeFleet(fates={"tiny": Fate.ABSENT}),
        unlike("model 'tiny' not found"),
    ),
    (
        "14 in OpenAI's words",
        facts(COMPLETIONS, CHAT),
        FakeFleet(fates={"tiny": Fate.ABSENT}),
        unlike("model 'tiny' not found", family="openai"),
    ),
    (
        "14 it is looked for later",
        facts(GENERATE, ASK),
        FakeFleet(fates={"tiny": Fate.LATER}),
        unlike(
            "model 'tiny' not found; no list names it yet, and it is looked for again "
            "in 20 min"
        ),
    ),
    (
        "14 a health check",
        facts(GENERATE, ASK, agent="uptime"),
        COLD,
        Say(Known.UNWOKEN),
    ),
    (
        "14 a health check of nothing",
        facts(GENERATE, ASK, agent="uptime"),
        FakeFleet(fates={"tiny": Fate.ABSENT}),
        unlike("model 'tiny' not found"),
    ),
    (
        "14 a health check, packed",
        coming(COMPLETIONS, agent="uptime", reading=Reading.WHOLE),
        COLD,
        Say(Known.UNWOKEN),
    ),
    (
        "14 a health check that failed",
        facts(GENERATE, ASK, agent="uptime", tried=True),
        READY,
        Say(Known.UNWOKEN),
    ),
    (
        "15 it waited in vain",
        facts(GENERATE, ASK, admitted=Wait(NAMED), waited=True),
        COLD,
        Unavailable(),
    ),
    (
        "15 it failed, and may not wait",
        facts(GENERATE, ASK, **FAILED),
        READY,
        Unavailable("refused"),
    ),
    ("16 a use, cold", facts(GENERATE, ASK), COLD, Wait(NAMED)),
    ("16 none to be had", facts(GENERATE, ASK, tried=True), READY, Wait(NAMED)),
    (
        "16 it failed, and may wait",
        facts(GENERATE, ASK, may_wait_s=9.0, **FAILED),
        READY,
        Wait(NAMED),
    ),
    (
        "16 once let wait, it is not judged again",
        facts(GENERATE, ASK, may_wait_s=9.0, admitted=Wait(NAMED), **FAILED),
        FakeFleet(fates={"tiny": Fate.ABSENT}),
        Wait(NAMED),
    ),
    (
        "16 it joins others",
        facts(GENERATE, ASK),
        FakeFleet(fates={"tiny": Fate.JOIN}),
        Wait(NAMED, joins=True),
    ),
    (
        "16 an unknown model",
        facts(GENERATE, ASK),
        FakeFleet(fates={"tiny": Fate.WAKE}),
        Wait(NAMED, seeks="tiny"),
    ),
    (
        "16 a pull of it",
        facts("POST /api/pull", LOAD),
        FakeFleet(fates={"tiny": Fate.ABSENT}),
        Wait(read_fields(LOAD)),
    ),
    (
        "16 too long to be looked at",
        coming(GENERATE, reading=Reading.WHOLE),
        COLD,
        Wait(),
    ),
    ("16 a listed route", facts("POST /v1/rerank", route=LISTED), COLD, Wait()),
    ("11 may not wake, ready", facts(GENERATE, ASK, **SLEEPER), READY, Relay()),
    (
        "16 may not wake",
        facts(GENERATE, ASK, **SLEEPER),
        COLD,
        Wait(NAMED, joins=True),
    ),
    (
        "16 may not wake, for an unknown model",
        facts(GENERATE, ASK, **SLEEPER),
        FakeFleet(fates={"tiny": Fate.WAKE}),
        Wait(NAMED, joins=True),
    ),
    (
        "16 may not wake, by a listed route",
        facts("POST /v1/rerank", route=LISTED, **SLEEPER),
        COLD,
        Wait(joins=True),
    ),
    (
        "16 may not wake, a change",
        facts("POST /api/pull", LOAD, **SLEEPER),
        COLD,
        Wait(read_fields(LOAD), joins=True),
    ),
    (
        "14 may not wake, nothing to unload",
        facts(GENERATE, UNLOAD, **SLEEPER),
        COLD,
        Say(Known.DONE),
    ),
    ("9 may not wake, a read", facts("GET /api/tags", **SLEEPER), COLD, COLD_SAID),
]


def bare(plan: Plan) -> Plan:
    """Return a plan without the fields that it took from the body."""
    return replace(plan, fields=None) if isinstance(plan, Say) else plan


@pytest.mark.parametrize(
    ("request_facts", "fleet", "plan"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_one_decision_for_both_servers(
    request_facts: Facts, fleet: FakeFleet, plan: Plan | str
) -> None:
    decided = decide(request_facts, fleet)

    if isinstance(plan, str):  # what it says is Ollama's, and tested there
        assert isinstance(decided, Refuse)
        assert str(decided.refusal.status) == plan
    elif isinstance(plan, Say) and plan.what is Known.DONE:
        assert bare(decided) == plan
    else:
        assert decided == plan


def test_deciding_changes_no_fact() -> None:
    for _, request_facts, fleet, _ in TABLE:
        before = replace(request_facts)
        decide(request_facts, fleet)

        assert request_facts == before


def test_a_list_of_several_instances_is_gathered() -> None:
    several = FakeFleet(is_ready=True, name="big", has_several=True)

    assert decide(facts("GET /api/ps"), several) == Gather("big")
    assert decide(facts("POST /api/show", LOAD), several) == Observe(5.0)


@pytest.mark.parametrize("agent", ["", "uptime"])
def test_a_packed_body_that_ollama_unpacks_is_not_looked_at(agent: str) -> None:
    packed = facts(COMPLETIONS, b"(packed)", agent=agent)
    packed.body = Body(b"(packed)", encoding="zstd")

    plan = decide(packed, COLD)

    assert plan == (Say(Known.UNWOKEN) if agent else Wait())
