"""`key`: keys made and changed by commands, through the running proxy."""

import contextlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollama_proxy.cli.key_view import consent_question
from ollama_proxy.gateway.key_text import key_id_of
from ollama_proxy.gateway.order_token import read_order_token
from tests.black_box import ProxyProcess, forked_proxy, run_cli
from tests.ports import address_of_nobody

TEXT = re.compile(r"op_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "s"


@pytest.fixture(scope="module")
def proxy(state: Path) -> Iterator[ProxyProcess]:
    with forked_proxy(state) as proxy:
        yield proxy


class Keys:
    """The command ``key``, of the proxy of one state folder."""

    def __init__(self, state: Path) -> None:
        self._state = str(state)
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        done = run_cli("key", *words, OLLAMA_PROXY_STATE_DIR=self._state)
        assert done.returncode == code, done.stderr + done.stdout
        self.err = done.stderr
        return done.stdout

    def made(self, name: str, *words: str) -> str:
        return self("add", name, "--yes", *words).removesuffix("\n")


@pytest.fixture
def keys(proxy: ProxyProcess, state: Path) -> Keys:
    assert proxy.process.poll() is None
    return Keys(state)


def test_a_new_key_is_printed_alone_with_how_to_use_it_beside(keys: Keys) -> None:
    text = keys.made("alone")

    assert key_id_of(text) is not None
    assert text not in keys.err
    assert f"alone ({text[3:11]}): chat, embed, read; all models" in keys.err
    assert "OLLAMA_API_KEY" in keys.err
    assert "`Authorization: Bearer …`" in keys.err


def test_every_option_is_shown_again(keys: Keys) -> None:
    keys.made(
        *("full", "--models", "llama3*,qwen3:*", "--routes", "chat,read,jobs"),
        *("--rpm", "60", "--parallel", "5", "--tokens-per-day", "100000"),
        *("--budget", "5/day", "--budget", "60/month", "--no-wake"),
        *("--max-hold", "5m", "--priority", "-2", "--expires", "30d"),
    )
    shown = json.loads(keys("show", "full", "--json"))
    words = keys("show", "full")

    assert shown["models"] == ["llama3*", "qwen3:*"]
    assert shown["routes"] == ["chat", "read", "jobs"]
    assert (shown["rpm"], shown["parallel"]) == (60, 5)
    assert (shown["tokens_per_day"], shown["priority"]) == (100000, -2)
    assert shown["budget"] == ["5/day", "60/month"]
    assert (shown["no_wake"], shown["max_hold"]) == (True, 300.0)
    assert shown["expires"] is not None
    for part in (
        "chat, read, jobs, without waking",
        "llama3*, qwen3:*",
        "60 requests a minute, 5 at once, 100000 tokens a day, 5/day, 60/month",
        "up to 300 s for an instance",
        "0 requests in progress, 0 tokens today, 0.00 spent today",
    ):
        assert part in words


def test_edit_sets_and_takes_away(keys: Keys) -> None:
    keys.made("edited", "--rpm", "60", "--no-wake", "--expires", "1h")
    told = keys(
        *("edit", "edited", "--rpm", "none", "--parallel", "2", "--wake"),
        *("--expires", "never"),
    )

    assert told.endswith("chat, embed, read; all models; 2 at once\n")


def test_a_key_is_disabled_enabled_rotated_and_removed(keys: Keys) -> None:
    first = keys.made("turned")
    assert keys("disable", "turned").startswith("disabled turned (")
    assert json.loads(keys("show", "turned", "--json"))["standing"] == "disabled"
    assert keys("enable", "turned").startswith("enabled turned (")
    second = keys("rotate", "turned", "--grace", "1h").removesuffix("\n")
    assert second != first
    assert second[:11] == first[:11]
    assert "the old text is taken until 20" in keys.err

    assert keys("rm", "turned").startswith("removed turned (")
    keys("show", "turned", code=1)
    assert "no key is named 'turned'; see `ollama-proxy key list`" in keys.err


def test_list_names_every_key_and_no_text(keys: Keys) -> None:
    text = keys.made("listed")
    told, as_json = keys("list"), keys("list", "--json")

    assert "listed" in told
    assert text[3:11] in told
    assert "listed" in {key["name"] for key in json.loads(as_json)["keys"]}
    assert TEXT.search(told + as_json) is None


def test_all_faults_of_a_command_are_told_a_line_each(keys: Keys) -> None:
    keys.made("taken")
    keys(
        *("add", "taken", "--rpm", "0", "--routes", "chatt", "--models", "a[b"),
        *("--tokens-per-day", "many", "--budget", "5", "--expires", "soon"),
        *("--max-hold", "long", "--priority", "high"),
        code=2,
    )
    told = [line.removeprefix("ollama-proxy: ") for line in keys.err.splitlines()]

    assert [line.partition(":")[0] for line in told] == [
        "name",
        "--models",
        "--routes",
        "--rpm",
        "--tokens-per-day",
        "--budget",
        "--max-hold",
        "--priority",
        "--expires",
    ]
    assert "--routes: 'chatt' is no right; did you mean chat?" in told


def test_an_unset_variable_makes_no_key_for_all_models(keys: Keys) -> None:
    keys("add", "unset", "--yes", "--models", "", code=2)

    assert "--models: '' names no model; write llama3*, or all" in keys.err


def test_a_name_that_is_empty_is_told(keys: Keys) -> None:
    keys("show", "", code=2)

    assert keys.err == "ollama-proxy: '' names no key; see `key list`\n"


def test_without_a_proxy_there_is_one_sentence(tmp_path: Path) -> None:
    done = run_cli(
        *("key", "add", "a"),
        OLLAMA_HOST=address_of_nobody(),
        OLLAMA_PROXY_STATE_DIR=str(tmp_path / "s"),
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "no ollama-proxy answers at" in done.stderr


def test_the_first_key_asks_and_without_a_terminal_nothing_is_made(
    tmp_path: Path,
) -> None:
    with forked_proxy(tmp_path / "s"):
        keys = Keys(tmp_path / "s")
        keys("add", "root", "--routes", "admin")
        assert "requests need no key so far" in keys.err
        keys("add", "first", code=2)
        told = keys.err
        assert [key["name"] for key in json.loads(keys("list", "--json"))["keys"]] == [
            "root"
        ]
        keys("edit", "root", "--routes", "admin,chat", code=2)
        keys("add", "first", "--yes")
        assert "requests need no key" not in keys.err
        keys("add", "second")

    assert told.startswith("ollama-proxy: This is the first key: from now on every")
    assert "none was seen in the last 1 min. Make it?" in told
    assert "nothing was touched; --yes answers" in told


def test_the_first_key_names_who_asked_without_one(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        request = urllib.request.Request(
            f"{proxy.url}/api/tags", headers={"User-Agent": "open-webui/0.6"}
        )
        urllib.request.urlopen(request, timeout=10).close()
        keys = Keys(tmp_path / "s")
        keys("list")
        keys("add", "first", code=2)
        told = keys.err
        text = keys("add", "first", "--yes").removesuffix("\n")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        request.add_header("Authorization", f"Bearer {text}")
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.status == 200

    refused.value.close()
    assert refused.value.code == 401
    assert "in the last 1 min: 127.0.0.1 (open-webui/0.6). Make it?" in told


def test_no_key_asks_where_the_settings_say_whether_one_is_needed(
    tmp_path: Path,
) -> None:
    with forked_proxy(tmp_path / "s", OLLAMA_PROXY_AUTH="off"):
        keys = Keys(tmp_path / "s")
        keys("add", "first")
        assert "requests need no key so far: OLLAMA_PROXY_AUTH is off" in keys.err


def test_the_question_names_the_clients_and_obeys_none_of_their_headers() -> None:
    clients = [
        {"address": f"10.0.0.{number}", "user_agent": "\x1b[2Jcurl\n", "ago_s": 1.0}
        for number in range(10)
    ]
    clients[0]["user_agent"] = ""
    told = consent_question(clients, 3600.0)

    assert "seen without one in the last hour: 10.0.0.0 (no user agent)," in told
    assert r"10.0.0.7 (\x1b[2Jcurl\n), 2 more." in told


def test_no_text_of_a_key_is_in_any_file_log_page_or_command_line(
    keys: Keys, proxy: ProxyProcess, state: Path
) -> None:
    """`docs/keys.md` promises it: what is stored is a digest."""
    token = read_order_token(state)
    texts = [keys.made("secret"), keys("rotate", "secret").removesuffix("\n")]
    for text in texts:
        proxy.raw(
            b"GET /api/tags HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Authorization: Bearer " + text.encode() + b"\r\n\r\n",
            silent_s=5.0,
        )
    places = [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    places += [proxy.log.read_bytes()]
    for page in ("/status", "/metrics", "/-/journal", "/-/keys", "/-/usage"):
        order = urllib.request.Request(
            proxy.url + page, headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(order, timeout=10) as reply:
            places.append(reply.read())
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            places.append(path.read_bytes())
    for text in texts:
        for part in (text, text[12:]):
            assert not any(part.encode() in place for place in places)
