"""`nodes`: the machines of a hub, through the running proxy."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.black_box import ProxyProcess, forked_proxy, run_cli

BEAT = {
    "node_id": "attic",
    "ipv4": "127.0.0.1",
    "ipv6": None,
    "port": 1,
    "models": ["llama3:latest"],
    "metadata": {"hostname": "attic.lan"},
    "load": {"cpu": 0.25, "memory": 0.5},
}
HUB = {"OLLAMA_PROXY_HUB": "true", "OLLAMA_PROXY_HUB_LISTEN": "off"}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nodes") / "s"


@pytest.fixture(scope="module")
def hub(state: Path) -> Iterator[ProxyProcess]:
    with forked_proxy(state, **HUB) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _beat(hub: ProxyProcess) -> None:
    assert hub.post("/nodes/heartbeat", BEAT)[0] == 200


def nodes(state: Path, *words: str, code: int = 0) -> str:
    done = run_cli("nodes", *words, OLLAMA_PROXY_STATE_DIR=str(state))
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout or done.stderr


def test_nodes_are_listed(state: Path) -> None:
    line = nodes(state, "list").splitlines()[1].split()

    assert line[:3] == ["attic", "online", "llama3:latest"]
    assert line[3:7] == ["25%", "50%", "0", "0"]


def test_nodes_are_listed_as_json(state: Path) -> None:
    [node] = json.loads(nodes(state, "list", "--json"))["nodes"]

    assert (node["node_id"], node["metadata"]) == ("attic", {"hostname": "attic.lan"})


def test_a_node_is_drained_and_gets_requests_again(
    hub: ProxyProcess, state: Path
) -> None:
    drained = nodes(state, "drain", "attic")
    told = hub.post("/nodes/heartbeat", BEAT)
    listed = nodes(state, "list")
    again = nodes(state, "undrain", "attic")

    assert drained == "attic gets no new requests; `nodes undrain` ends that\n"
    assert json.loads(told[1])["drain"] is True
    assert "online, draining" in listed
    assert again == "attic gets requests again\n"
    assert "draining" not in nodes(state, "list")


def test_a_node_is_removed_until_its_next_beat(state: Path) -> None:
    removed = nodes(state, "rm", "attic")

    assert removed == "removed attic; its next beat brings it back\n"
    assert "no node has registered itself" in nodes(state, "list")


def test_an_unknown_node_is_named(state: Path) -> None:
    told = nodes(state, "drain", "cellar", code=1)

    assert "no node is named 'cellar'" in told


def test_orders_are_in_the_audit(hub: ProxyProcess, state: Path) -> None:
    nodes(state, "drain", "attic")
    nodes(state, "undrain", "attic")
    lines = [line for line in hub.get("/-/journal")["audit"] if line["target"]]

    assert [line["action"] for line in lines[:2]] == ["nodes undrain", "nodes drain"]


def test_where_there_is_no_hub_the_command_says_how_to_have_one(
    tmp_path: Path,
) -> None:
    with forked_proxy(tmp_path):
        told = nodes(tmp_path, "list", code=2)

    assert "is no hub; start it with OLLAMA_PROXY_HUB=true" in told
