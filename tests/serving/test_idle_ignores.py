"""Health checks that the settings name: they wake nothing and keep nothing."""

import asyncio
import time
from pathlib import Path

import pytest

from ollama_proxy.base.errors import SettingsError
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.ollama.request_fields import read_fields
from ollama_proxy.core.ollama.routes import Family
from ollama_proxy.serving.idle_ignores import IdleIgnores, IgnoreRule, parse_ignores
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy
from tests.test_idleness import in_chunks, request, servers
from tests.virtual_time import SetClock
from tests.wire import Answer, read_answer

RULES = "agent=Uptime-Kuma*, path=/v1/completions, agent=LiteLLM*&tokens<=16"
KUMA = "Uptime-Kuma/1.23.1"
SHORT = '{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}'
LONG = SHORT.replace('"max_tokens":1', '"max_tokens":17')


def is_ignored(
    rules: str, *, agent: str = "", path: str = "/x", body: str = ""
) -> bool:
    family = Family.NATIVE if path.startswith("/api/") else Family.OPENAI
    fields = read_fields(body.encode()) if body else None
    return IdleIgnores(parse_ignores(rules)).match(agent, path, family, fields)


def test_rules_are_read_from_a_text_or_a_list() -> None:
    rules = (
        IgnoreRule(agent="Uptime-Kuma*"),
        IgnoreRule(agent="me (a; b)", tokens=5),
        IgnoreRule(path="/v1/*"),
    )

    written = "agent=Uptime-Kuma*, agent = me (a; b) & tokens <= 5, path=/v1/*"
    assert parse_ignores(written) == rules
    assert parse_ignores(["agent=a,b"]) == (IgnoreRule(agent="a,b"),)
    assert parse_ignores("") == ()


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("Uptime-Kuma", "write agent=Uptime-Kuma*"),
        ("user-agent=x", "write agent=Uptime-Kuma*"),
        ("agent=", "is no rule"),
        ("&", "is no rule"),
        ("tokens=5", "tokens<=5"),
        ("tokens<5", "tokens<=5"),
        ("tokens<=0", "no number from 1"),
        ("tokens<=-1", "no number from 1"),
        ("tokens<=٣", "no number from 1"),
        ("tokens<=" + "9" * 5000, "no number from 1"),
        ("path=v1/completions", "write path=/v1/completions"),
        ("agent=*", "nothing would wake"),
        ("path=/*&agent=**", "nothing would wake"),
        ("agent=a&agent=b", "make two rules of it"),
    ],
)
def test_a_rule_that_can_not_be_meant_is_a_fault_that_says_what_to_write(
    rule: str, told: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"OLLAMA_PROXY_IDLE_IGNORES": f"path=/v1/ok, {rule}"})

    assert str(caught.value).startswith("OLLAMA_PROXY_IDLE_IGNORES: ")
    assert told in str(caught.value)


def test_without_rules_nothing_is_ignored() -> None:
    assert not is_ignored("", agent=KUMA, body=SHORT)


@pytest.mark.parametrize(
    ("glob", "agent", "matches"),
    [
        ("Uptime-Kuma*", KUMA, True),
        ("uptime-kuma*", KUMA, True),
        ("Uptime-Kuma", KUMA, False),
        ("*kuma*", "x Kuma y", True),
        ("a?c", "abc", True),
        ("a[b]c", "abc", False),
        ("a[b]c", "a[b]c", True),
        ("a.c", "abc", False),
        ("x*", "", False),
    ],
)
def test_an_agent_is_matched_as_a_whole_in_any_case(
    glob: str, agent: str, *, matches: bool
) -> None:
    assert is_ignored(f"agent={glob}", agent=agent) == matches


def test_a_path_is_matched_as_it_is_written() -> None:
    assert is_ignored("path=/v1/*", path="/v1/chat/completions")
    assert not is_ignored("path=/v1/Completions", path="/v1/completions")


def test_a_long_agent_does_not_take_long() -> None:
    begun_at = time.process_time()
    assert not is_ignored("agent=" + "*a" * 20 + "*b", agent="a" * 500_000)

    assert time.process_time() - begun_at < 1.0


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/api/chat", '"options":{"num_predict":5}'),
        ("/api/generate", '"options":{"num_predict":1.0,"seed":7}'),
        ("/api/chat", '"Options":{"NUM_PREDICT":5}'),
        ("/v1/chat/completions", '"max_tokens":5'),
        ("/v1/chat/completions", '"max_tokens":null,"max_completion_tokens":5'),
        ("/v1/responses", '"max_output_tokens":5'),
        ("/v1/messages", '"max_tokens":1'),
    ],
)
def test_a_short_answer_is_one_by_the_name_that_its_family_has(
    path: str, limit: str
) -> None:
    assert is_ignored("tokens<=5", path=path, body=f'{{"model":"m",{limit}}}')


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/api/chat", '"options":{"num_predict":6}'),
        ("/api/chat", '"options":{"num_predict":0}'),
        ("/api/chat", '"options":{"num_predict":-1}'),
        ("/api/chat", '"options":{"num_predict":-2}'),
        ("/api/chat", '"options":{"num_predict":"5"}'),
        ("/api/chat", '"options":{"num_predict":true}'),
        ("/api/chat", '"options":{"num_predict":1e400}'),
        ("/api/chat", '"options":{}'),
        ("/api/chat", '"options":[5]'),
        ("/api/chat", '"max_tokens":5'),
        ("/v1/chat/completions", '"max_tokens":6'),
        ("/v1/chat/completions", '"max_tokens":0'),
        ("/v1/chat/completions", '"max_tokens":null'),
        ("/v1/chat/completions", '"max_tokens":5,"max_completion_tokens":6'),
        ("/v1/chat/completions", '"max_tokens":5,"max_completion_tokens":-1'),
        ("/v1/chat/completions", '"options":{"num_predict":5}'),
        ("/v1/embeddings", '"input":"hi"'),
    ],
)
def test_what_sets_no_limit_or_a_larger_one_is_no_short_answer(
    path: str, limit: str
) -> None:
    assert not is_ignored("tokens<=5", path=path, body=f'{{"model":"m",{limit}}}')


def test_all_conditions_of_a_rule_must_hold() -> None:
    rules = "agent=LiteLLM*&tokens<=16"

    assert is_ignored(rules, agent="litellm/1.80", body=SHORT)
    assert not is_ignored(rules, agent="litellm/1.80", body=LONG)
    assert not is_ignored(rules, agent="openai/2", body=SHORT)
    assert not is_ignored(rules, agent="litellm/1.80")


CHECKS = {
    "by its agent": request("/v1/chat/completions", LONG, User_Agent=KUMA),
    "by its path": request("/v1/completions", '{"model":"tiny","prompt":"hi"}'),
    "by both": request("/v1/chat/completions", SHORT, User_Agent="litellm/1.80"),
    "a load": request("/api/generate", '{"model":"tiny"}', User_Agent=KUMA),
    "of unknown length": in_chunks(
        request("/v1/chat/completions", SHORT, User_Agent="litellm/1.80")
    ),
    "that waits": request(
        "/v1/chat/completions", LONG, User_Agent=KUMA, Prefer="wait=60"
    ),
    "a vector": request("/api/embed", '{"model":"tiny","input":"hi"}', User_Agent=KUMA),
}
NO_CHECKS = {
    "long": request("/v1/chat/completions", LONG, User_Agent="litellm/1.80"),
    "another agent": request("/v1/chat/completions", SHORT, User_Agent="openai/2"),
    "without an agent": request("/v1/chat/completions", SHORT),
    "a pull": request("/api/pull", '{"model":"other"}', User_Agent=KUMA),
}


async def ask(proxy: RunningProxy, raw: bytes, *, behind: bool) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        async with asyncio.timeout(10.0):
            if behind:
                writer.write(raw[:10])
                await proxy.until(lambda: proxy.behind > 0)
                raw = raw[10:]
            writer.write(raw)
            return await read_answer(reader, "POST")
    finally:
        writer.close()


@servers
@pytest.mark.parametrize("hold", ["0", "60s"])
async def test_asleep_a_check_gets_its_503_at_once_and_wakes_nothing(
    tmp_path: Path, hold: str, *, behind: bool
) -> None:
    backend = InProcessBackend()
    async with running_proxy(
        tmp_path,
        backend=backend,
        OLLAMA_PROXY_HOLD=hold,
        OLLAMA_PROXY_IDLE_IGNORES=RULES,
    ) as proxy:
        for name, raw in CHECKS.items():
            answer = await ask(proxy, raw, behind=behind)
            fields = {key.lower(): value for key, value in answer.headers}

            assert answer.status == b"HTTP/1.1 503 Service Unavailable", name
            assert b"OLLAMA_PROXY_IDLE_IGNORES" in answer.body, name
            assert fields["x-ollama-proxy"] == "idle", name
            assert fields["cache-control"] == "no-store", name
            assert int(fields["retry-after"]) >= 1, name
            assert "preference-applied" not in fields, name
            assert proxy.state == "cold", name

    assert backend.launches == 0


@servers
@pytest.mark.parametrize("name", NO_CHECKS)
async def test_asleep_what_is_no_check_wakes(
    tmp_path: Path, name: str, *, behind: bool
) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_IDLE_IGNORES=RULES) as proxy:
        await ask(proxy, NO_CHECKS[name], behind=behind)

        assert proxy.state != "cold"


@servers
async def test_awake_a_check_is_relayed_and_is_no_use(
    tmp_path: Path, *, behind: bool
) -> None:
    clock = SetClock()
    async with running_proxy(
        tmp_path, clock=clock, OLLAMA_PROXY_IDLE_IGNORES=RULES
    ) as proxy:
        await proxy.wake()
        clock.moment += 60.0
        for name, raw in CHECKS.items():
            answer = await ask(proxy, raw, behind=behind)

            assert answer.status == b"HTTP/1.1 200 OK", name
            assert (await proxy.status())["idle_for_s"] == 60.0, name


@servers
async def test_awake_what_is_no_check_is_use(tmp_path: Path, *, behind: bool) -> None:
    clock = SetClock()
    async with running_proxy(
        tmp_path, clock=clock, OLLAMA_PROXY_IDLE_IGNORES=RULES
    ) as proxy:
        await proxy.wake()
        for name, raw in NO_CHECKS.items():
            clock.moment += 60.0
            await ask(proxy, raw, behind=behind)
            await proxy.until(lambda: proxy.parts.pool.in_flight == 0)

            assert (await proxy.status())["idle_for_s"] == 0.0, name


async def test_a_check_while_an_instance_starts_is_told_so(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=1000.0)
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_IDLE_IGNORES=RULES
    ) as proxy:
        await proxy.parts.pool.wake()
        answer = await ask(proxy, CHECKS["by its agent"], behind=False)
        backend.boot_s = 0.0

    assert b"is starting" in answer.body


async def test_a_check_that_is_under_way_holds_its_instance(tmp_path: Path) -> None:
    slow = request(
        "/v1/chat/completions",
        LONG,
        User_Agent=KUMA,
        X_Simulator_Fault="delay=0.5",
    )
    clock = SetClock()
    async with running_proxy(
        tmp_path, clock=clock, OLLAMA_PROXY_IDLE_IGNORES=RULES
    ) as proxy:
        await proxy.wake()
        async with asyncio.TaskGroup() as asking:
            answering = asking.create_task(ask(proxy, slow, behind=False))
            await proxy.until(lambda: proxy.parts.pool.in_flight == 1)
            clock.moment += 7200.0
        answer = answering.result()
        await proxy.until(lambda: proxy.state == "cold")

    assert answer.status == b"HTTP/1.1 200 OK"


async def test_a_route_that_is_listed_can_be_named_too(tmp_path: Path) -> None:
    async with running_proxy(
        tmp_path,
        OLLAMA_PROXY_EXTRA_ROUTES="POST /v1/rerank",
        OLLAMA_PROXY_IDLE_IGNORES="path=/v1/re*",
    ) as proxy:
        answer = await ask(proxy, request("/v1/rerank", "{}"), behind=False)

        assert b"OLLAMA_PROXY_IDLE_IGNORES" in answer.body
        assert proxy.state == "cold"


@servers
async def test_a_check_with_a_large_body_is_told_by_its_head_alone(
    tmp_path: Path, *, behind: bool
) -> None:
    body = SHORT.replace("hi", "hi" * 200_000)
    raw = request("/v1/chat/completions", body, User_Agent=KUMA)
    clock = SetClock()
    async with running_proxy(
        tmp_path, clock=clock, OLLAMA_PROXY_IDLE_IGNORES=RULES
    ) as proxy:
        asleep = await ask(proxy, raw, behind=behind)
        assert (asleep.status[9:12], proxy.state) == (b"503", "cold")
        await proxy.wake()
        clock.moment += 60.0
        awake = await ask(proxy, raw, behind=behind)

        assert awake.status[9:12] == b"200"
        assert (await proxy.status())["idle_for_s"] == 60.0
