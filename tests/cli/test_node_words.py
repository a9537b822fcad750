"""Start, `check`, `status` and /status say that machines register without a key."""

import json
from pathlib import Path

from tests.black_box import forked_proxy, run_cli

HUB = {"OLLAMA_PROXY_HUB": "true", "OLLAMA_PROXY_HUB_LISTEN": "127.0.0.1:0"}
WORDS = "can register a machine here and read prompts"


def test_it_is_told_until_there_is_a_key(tmp_path: Path) -> None:
    state = tmp_path / "s"
    own = {"OLLAMA_PROXY_STATE_DIR": str(state)}
    assert f"nodes: every program on this machine {WORDS}" in checked(**own, **HUB)
    with forked_proxy(state, **HUB) as proxy:
        assert (
            f"Warning: every program on this machine {WORDS}" in proxy.log.read_text()
        )
        hub = proxy.get("/status")["hub"]
        assert hub["takes_nodes_without_key"]
        assert WORDS in hub["warning"]
        assert "they register without a key" in run_cli("status", **own).stdout
        run_cli("key", "add", "laptop", "--yes", **own)
        told = json.loads(run_cli("status", "--json", **own).stdout)["hub"]
        assert told == {"takes_nodes_without_key": False, "warning": None}
    assert "nodes: machines register by a key" in checked(**own, **HUB)
    with forked_proxy(state, **HUB) as proxy:
        assert WORDS not in proxy.log.read_text()


def test_a_wide_bind_is_told_as_what_it_is(tmp_path: Path) -> None:
    env = HUB | {"OLLAMA_PROXY_HUB_LISTEN": ":0"}
    told = checked(OLLAMA_PROXY_STATE_DIR=str(tmp_path), **env)
    assert "anybody on this network can register a machine and read prompts" in told


def test_without_a_hub_nothing_is_told(tmp_path: Path) -> None:
    assert "nodes:" not in checked(OLLAMA_PROXY_STATE_DIR=str(tmp_path))
    with forked_proxy(tmp_path / "s") as proxy:
        assert proxy.get("/status")["hub"] is None


def checked(**env: str) -> str:
    done = run_cli("check", OLLAMA_HOST="127.0.0.1:0", **env)
    return " ".join((done.stdout + done.stderr).split())
