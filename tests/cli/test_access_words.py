"""What the start, ``check`` and ``/status`` say while no key is needed."""

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.base import log
from tests.black_box import Launch, ProxyProcess, launched_proxy, run_cli

OPEN = "no key is needed: whoever reaches 0.0.0.0:"
OPEN_HERE = "no key is needed: every program that reaches 127.0.0.1:"


def logged(proxy: ProxyProcess, event: str) -> list[dict[str, Any]]:
    lines = proxy.log.read_text().splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [one for one in told if one["event"] == event]


@pytest.mark.parametrize(
    ("host", "words"), [("0.0.0.0", OPEN), ("127.0.0.1", OPEN_HERE)]
)
def test_an_open_proxy_says_so_at_its_start_and_in_its_status(
    tmp_path: Path, host: str, words: str
) -> None:
    state = tmp_path / "s"
    with launched_proxy(state, Launch(host=host, is_forked=True), {}) as proxy:
        (line,) = logged(proxy, log.ACCESS_OPEN)
        assert line["reason"].startswith(words)
        assert f"Warning: {words}" in proxy.log.read_text()
        access = proxy.get("/status")["access"]
        assert access["needs_key"] is False
        assert access["only_this_machine"] is (host == "127.0.0.1")
        assert access["warning"].startswith(words)
        shown = run_cli("status", OLLAMA_PROXY_STATE_DIR=str(state)).stdout
        assert "no key is needed" in shown

        run_cli("key", "add", "a", "--yes", OLLAMA_PROXY_STATE_DIR=str(state))
        told = run_cli("status", "--json", OLLAMA_PROXY_STATE_DIR=str(state))
        access = json.loads(told.stdout)["access"]
        assert (access["needs_key"], access["warning"]) == (True, None)


def test_a_proxy_that_needs_keys_says_nothing_of_it_and_stays_healthy(
    tmp_path: Path,
) -> None:
    launch = Launch(host="0.0.0.0", is_forked=True)
    env = {"OLLAMA_PROXY_AUTH": "keys"}
    with launched_proxy(tmp_path / "s", launch, env) as proxy:
        assert logged(proxy, log.ACCESS_OPEN) == []
        assert "Warning: no key" not in proxy.log.read_text()
        health = run_cli("healthcheck", OLLAMA_HOST=proxy.url)
        assert health.returncode == 0, health
        with pytest.raises(urllib.error.HTTPError, match="401"):
            proxy.get("/status")
        shown = run_cli("status", OLLAMA_PROXY_STATE_DIR=str(tmp_path / "s"))
        assert shown.returncode == 0


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"OLLAMA_HOST": "0.0.0.0:0"}, "no key is needed: whoever reaches 0.0.0.0:0"),
        ({"OLLAMA_HOST": "127.0.0.1:0"}, "no key is needed: every program"),
        ({"OLLAMA_PROXY_AUTH": "keys"}, "access: requests need a key"),
        ({"OLLAMA_PROXY_AUTH": "off"}, "no key is needed"),
    ],
)
def test_check_says_what_the_start_would(
    tmp_path: Path, env: dict[str, str], words: str
) -> None:
    told = run_cli(
        "check",
        **{
            "OLLAMA_HOST": "127.0.0.1:0",
            "OLLAMA_PROXY_STATE_DIR": str(tmp_path / "s"),
            "OLLAMA_PROXY_SIMULATOR": "always",
            **env,
        },
    )
    assert words in " ".join(told.stdout.split())
