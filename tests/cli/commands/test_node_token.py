"""`node-token`: one line that joins a machine, and the tokens that wait for one."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollama_proxy.core.nodes.node_keys import read_join_token
from tests.black_box import ProxyProcess, forked_proxy, run_cli
from tests.ports import held_port

LINE = re.compile(r"OLLAMA_PROXY_NODE_TOKEN=(\S+) SERVER_URL=(\S+) ollama-proxy node")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "s"


@pytest.fixture(scope="module")
def port() -> int:
    return held_port()


@pytest.fixture(scope="module", autouse=True)
def hub(state: Path, port: int) -> Iterator[ProxyProcess]:
    env = {"OLLAMA_PROXY_HUB": "true", "OLLAMA_PROXY_HUB_LISTEN": f"127.0.0.1:{port}"}
    with forked_proxy(state, **env) as proxy:
        yield proxy


def node_token(state: Path, *words: str, code: int = 0) -> tuple[str, str]:
    done = run_cli("node-token", *words, OLLAMA_PROXY_STATE_DIR=str(state))
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout, done.stderr


def test_one_line_is_printed_alone_with_what_it_is_for_beside(
    state: Path, port: int
) -> None:
    out, err = node_token(state)
    found = LINE.fullmatch(out.removesuffix("\n"))
    assert found is not None
    given = read_join_token(found[1])
    assert given is not None
    assert given.fingerprint
    assert found[2] == f"https://127.0.0.1:{port}"
    assert "within 1h" in err
    assert given.sent not in err


def test_without_tls_the_line_says_so(state: Path, port: int) -> None:
    out, _ = node_token(state, "--no-tls")
    assert out.endswith(
        f"SERVER_URL=http://127.0.0.1:{port} ollama-proxy node --no-tls\n"
    )
    found = re.search(r"=(opj_\S+)", out)
    assert found is not None
    given = read_join_token(found[1])
    assert given is not None
    assert given.fingerprint == ""


def test_through_a_gateway_with_a_certificate_the_machine_speaks_tls(
    state: Path,
) -> None:
    out, _ = node_token(state, "--no-tls", "--url", "https://hub.example.com")
    assert out.endswith(" SERVER_URL=https://hub.example.com ollama-proxy node\n")
    assert "." not in out.split(" ")[0]


def test_another_address_is_printed_as_it_is_given(state: Path) -> None:
    out, _ = node_token(state, "--url", "https://hub.lan:8000")
    assert "SERVER_URL=https://hub.lan:8000 " in out


def test_a_token_is_listed_until_it_is_revoked(state: Path) -> None:
    made = json.loads(node_token(state, "--ttl", "10m", "--json")[0])
    assert made["expires_in_s"] == 600.0
    listed = json.loads(node_token(state, "--list", "--json")[0])["tokens"]
    (one,) = [token for token in listed if token["id"] == made["id"]]
    assert 0 < one["expires_in_s"] <= 600
    assert set(one) == {"id", "expires_in_s"}
    node_token(state, "--revoke", made["id"])
    assert made["id"] not in node_token(state, "--list")[0]
    _, err = node_token(state, "--revoke", made["id"], code=1)
    assert "no join token" in err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--ttl", "soon"], 2, "--ttl: 'soon' is not a duration"),
        (["--ttl", "1s"], 1, "from 60 s to 30 days"),
        (["--ttl", "90d"], 1, "from 60 s to 30 days"),
        (["--revoke", "../keys"], 1, "no join token"),
    ],
)
def test_what_cannot_be_done_is_told(
    words: list[str], code: int, told: str, state: Path
) -> None:
    assert told in node_token(state, *words, code=code)[1]


def test_the_orders_need_the_right_to_give_orders(hub: ProxyProcess) -> None:
    status, _ = hub.post("/-/node-tokens", {}, authorization="Bearer nonsense")
    assert status == 401


@pytest.mark.parametrize("body", [[], {"ttl_s": "1h"}, {"ttl": 5}, {"ttl_s": 1e999}])
def test_a_body_that_is_none_is_refused(body: object, hub: ProxyProcess) -> None:
    status, answer = hub.post("/-/node-tokens", body)
    assert status == 400
    assert json.loads(answer)["error"]


def test_a_proxy_that_is_no_hub_says_so(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s"):
        _, err = node_token(tmp_path / "s", code=2)
    assert "OLLAMA_PROXY_HUB=true" in err


def test_nodes_without_a_key_that_the_joining_ends_are_named(
    hub: ProxyProcess, state: Path
) -> None:
    for number in range(7):
        beat = {"node_id": f"old-{number}", "port": 1, "models": []}
        assert hub.post("/nodes/heartbeat", beat)[0] == 200
    told = " ".join(node_token(state)[1].split())
    assert "old-0, old-1, old-2, old-3, old-4 and 2 more get no requests" in told
    assert "OLLAMA_PROXY_HUB_LEGACY=on" in told
