"""`usage`: what keys used, through the running proxy."""

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.black_box import ProxyProcess, forked_proxy, run_cli
from tests.ports import address_of_nobody

CHAT = {
    "model": "llama3.2",
    "messages": [{"role": "user", "content": "hello"}],
    "options": {"num_predict": 7},
    "stream": False,
}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("usage") / "s"


@pytest.fixture(scope="module")
def proxy(state: Path) -> Iterator[ProxyProcess]:
    """A proxy that a key was used with, to its instance's own figures."""
    with forked_proxy(state) as proxy:
        made = run_cli(
            "key", "add", "laptop", "--yes", OLLAMA_PROXY_STATE_DIR=str(state)
        )
        key = {"Authorization": f"Bearer {made.stdout.strip()}", "Prefer": "wait=60"}
        assert proxy.post("/api/chat", CHAT, **key)[0] == 200
        proxy.until(lambda: bool(proxy.get("/-/usage")["usage"]))
        yield proxy


def usage(state: Path, *words: str, code: int = 0) -> tuple[str, str]:
    done = run_cli("usage", *words, OLLAMA_PROXY_STATE_DIR=str(state))
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout, done.stderr


def test_usage_is_told_in_columns(proxy: ProxyProcess, state: Path) -> None:
    lines = usage(state)[0].splitlines()

    assert lines[0].split() == [
        *("KEY", "REQUESTS", "PROMPT", "OUTPUT", "ESTIMATED", "SECONDS", "REFUSED")
    ]
    assert lines[1].split()[:5] == ["laptop", "1", "1", "7", "0"]
    assert lines[2].split()[:5] == ["all", "1", "1", "7", "0"]


def test_usage_is_told_by_model_and_day(proxy: ProxyProcess, state: Path) -> None:
    by_model, by_both = (
        usage(state, "--by", "model")[0],
        usage(state, "--by", "model,day"),
    )

    assert "llama3.2:latest" in by_model
    assert "laptop" not in by_model
    assert time.strftime("%Y-", time.gmtime()) in by_both[0]


def test_usage_is_told_as_json_and_as_csv(proxy: ProxyProcess, state: Path) -> None:
    (row,) = json.loads(usage(state, "--json")[0])["usage"]
    titles, values = csv.reader(io.StringIO(usage(state, "--csv")[0]))

    assert (row["key"], row["output_tokens"]) == ("laptop", 7)
    assert titles[:2] == ["key", "requests"]
    assert values[:2] == ["laptop", "1"]


def test_usage_of_one_key(proxy: ProxyProcess, state: Path) -> None:
    assert "laptop" in usage(state, "--key", "laptop", "--days", "1")[0]
    assert usage(state, "--key", "nobody")[0] == "no key was used in the last 30 days\n"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--by", "colour"), "--by: 'colour' is nothing to group by"),
        (("--days", "no"), "--days: 'no' is no number of days from 1 to 400"),
    ],
)
def test_a_word_that_is_wrong_is_named_with_its_option(
    proxy: ProxyProcess, state: Path, words: tuple[str, str], fault: str
) -> None:
    assert fault in usage(state, *words, code=2)[1]


def test_without_a_proxy_the_command_says_so(tmp_path: Path) -> None:
    done = run_cli("usage", OLLAMA_HOST=address_of_nobody())

    assert done.returncode == 1
    assert "no ollama-proxy answers" in done.stderr
