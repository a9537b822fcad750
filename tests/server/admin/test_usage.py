"""What keys used, over HTTP: ``/-/usage``."""

import json
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.facts import AccessFacts
from ollama_proxy.core.access.keys import Caller, Key, KeyId
from ollama_proxy.core.access.token_figures import Tokens
from ollama_proxy.core.access.usage import BY_ALL, UsageField, UsageRow
from ollama_proxy.server.admin.usage import usage_body
from tests.fakes.callers import bearer
from tests.proxy import RunningProxy, running_proxy

LAPTOP = Key(KeyId("0123abcd"), "laptop", bytes(32))
PHONE = Key(KeyId("89abcdef"), "phone", bytes(32))
USED = {"requests": 1, "prompt_tokens": 10, "output_tokens": 20, "estimated": 3}


def identify(facts: AccessFacts) -> Caller:
    """Take a name for a key, and ``root`` for an owner."""
    name = facts.headers.get("Authorization", "").removeprefix("Bearer ")
    keys = {key.name: key for key in (LAPTOP, PHONE)}
    return Caller(facts.peer, keys.get(name), is_admin=name == "root")


async def ask(
    proxy: RunningProxy, name: str = "root", query: str = ""
) -> tuple[int, Any]:
    async with proxy.session.get(
        f"{proxy.url}/-/usage{query}", headers=bearer(name)
    ) as reply:
        return reply.status, json.loads(await reply.read())


def use(proxy: RunningProxy) -> str:
    """Have both keys use something; return today's day."""
    usage, keyring = proxy.parts.gateway.usage, proxy.parts.gateway.keyring
    keyring.put(LAPTOP, AuditLine(0.0, "", "", "key add", "laptop"))
    for key, model in ((LAPTOP, "m"), (LAPTOP, "n"), (PHONE, "m")):
        usage.add(key, model, Tokens(10, 20, 3), 1.23456, is_served=True)
    usage.refuse(PHONE)
    return usage.usage(1, None, BY_ALL)[0].day


async def test_an_owner_sees_what_all_keys_used(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, identify=identify) as proxy:
        use(proxy)
        status, told = await ask(proxy)

    assert status == 200
    assert (told["by"], told["days"], told["left_out"]) == (["key"], 30, 0)
    assert [(row["key"], row["requests"], row["refused"]) for row in told["usage"]] == [
        ("laptop", 2, 0),
        ("phone", 1, 1),
    ]


async def test_usage_is_grouped_by_what_is_asked_for(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, identify=identify) as proxy:
        day = use(proxy)
        _, by_all = await ask(proxy, query="?by=key,%20model,day&key=laptop")
        _, by_model = await ask(proxy, query="?by=model")
        _, by_day = await ask(proxy, query="?by=day&days=1")

    first = {"day": day, "key": "laptop", "key_id": "0123abcd", "model": "m:latest"}
    assert by_all["usage"][0] == {**first, **USED, "seconds": 1.235, "refused": 0}
    assert [row["model"] for row in by_all["usage"]] == ["m:latest", "n:latest"]
    assert {row["model"]: row["requests"] for row in by_model["usage"]} == {
        "": 0,
        "m:latest": 2,
        "n:latest": 1,
    }
    (today,) = by_day["usage"]
    assert today == {
        "day": day,
        "requests": 3,
        "prompt_tokens": 30,
        "output_tokens": 60,
        "estimated": 9,
        "seconds": 3.704,
        "refused": 1,
    }


@pytest.mark.parametrize("query", ["", "?key=laptop", "?key=0123abcd", "?by=model"])
async def test_a_key_sees_its_own_usage_alone(tmp_path: Path, query: str) -> None:
    async with running_proxy(tmp_path, identify=identify) as proxy:
        use(proxy)
        status, told = await ask(proxy, "laptop", query)

    assert status == 200
    assert sum(row["requests"] for row in told["usage"]) == 2
    assert "phone" not in str(told)


async def test_a_key_does_not_see_that_of_another(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, identify=identify) as proxy:
        use(proxy)
        status, told = await ask(proxy, "laptop", "?key=phone")

    assert status == 403
    assert told == {
        "error": "the key 'laptop' lacks the right 'admin', so it sees its own usage"
        " alone"
    }


async def test_who_has_no_key_sees_nothing(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, identify=identify) as proxy:
        use(proxy)
        status, told = await ask(proxy, "nobody")

    assert status == 403
    assert "call `ollama-proxy usage`" in told["error"]


async def test_a_key_that_was_removed_is_found_by_its_id(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, identify=identify) as proxy:
        use(proxy)
        _, told = await ask(proxy, query="?key=89abcdef")
        _, nothing = await ask(proxy, query=f"?key={'x' * 5000}")

    assert [row["key"] for row in told["usage"]] == ["phone"]
    assert nothing["usage"] == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?by=colour", "by: 'colour' is nothing to group by"),
        ("?by=", "by: '' is nothing to group by"),
        ("?by=key;DROP%20TABLE%20usage", "is nothing to group by"),
        ("?days=0", "days: '0' is no number of days from 1 to 400"),
        ("?days=-1", "days: '-1' is no number"),
        ("?days=401", "days: '401' is no number"),
        ("?days=1e3", "days: '1e3' is no number"),
        ("?days=%D9%A3", "is no number"),
        (f"?days={'9' * 6000}", "is no number"),
        (f"?by={'k' * 6000}", "is nothing to group by"),
    ],
)
async def test_what_can_not_be_told_is_answered_in_a_sentence(
    tmp_path: Path, query: str, words: str
) -> None:
    async with running_proxy(tmp_path, identify=identify) as proxy:
        status, told = await ask(proxy, query=query)

    assert status == 400
    assert words in told["error"]
    assert len(told["error"]) < 400


def test_of_too_many_rows_the_newest_are_told() -> None:
    rows = [UsageRow(f"2026-11-{day:02}", requests=day) for day in range(1, 6)]
    body = usage_body(rows, {UsageField.DAY}, most=2)

    assert [row["day"] for row in body["usage"]] == ["2026-11-04", "2026-11-05"]
    assert body["left_out"] == 3
