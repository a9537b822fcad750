"""Whose beats a hub takes without a key, by default: as former agents send them."""

import contextlib
import ipaddress
import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.black_box import ProxyProcess, run_cli
from tests.hub_peers.former_agent import FormerAgent
from tests.hub_peers.real_agents import hub_process

MODELS = ("llama3:latest",)


def private_address() -> str:
    """Return an address of this machine on a private network; "" if it has none."""
    networks = [
        ipaddress.ip_network(one)
        for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
    ] + [ipaddress.ip_network("fc00::/7")]
    for address in _addresses():
        if any(ipaddress.ip_address(address) in network for network in networks):
            return address
    return ""


def _addresses() -> list[str]:
    families = {socket.AF_INET, socket.AF_INET6}
    found = [one for card in psutil.net_if_addrs().values() for one in card]
    return [
        one.address
        for one in found
        if one.family in families and "%" not in one.address
    ]


def asked(hub: ProxyProcess, agent: FormerAgent, **headers: str) -> tuple[int, str]:
    """Send a beat with more headers; return status and words."""
    body = {"node_id": agent.node_id, "port": agent.port, "models": list(MODELS)}
    request = urllib.request.Request(
        f"{hub.url}/nodes/heartbeat",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["detail"]


def job(hub: ProxyProcess) -> int:
    return hub.post("/jobs", {"model": "llama3", "prompt": "hi", "stream": False})[0]


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Via"],
)
def test_a_beat_that_another_server_relays_is_refused(
    tmp_path: Path, header: str
) -> None:
    agent = FormerAgent("gpu-1", MODELS)
    with hub_process(tmp_path) as hub, agent.serving():
        status, words = asked(hub, agent, **{header: "10.0.0.7"})
        listed = hub.get("/nodes")

    assert status == 403
    assert "another server relays this beat" in words
    assert not listed


def test_where_others_can_connect_this_machine_needs_a_key(tmp_path: Path) -> None:
    agent = FormerAgent("gpu-1", MODELS)
    with hub_process(tmp_path, OLLAMA_HOST="0.0.0.0:0") as hub, agent.serving():
        status, words = asked(hub, agent)
        listed = hub.get("/nodes")

    assert status == 403
    assert "only where the hub listens on loopback" in words
    assert not listed


def test_an_agent_of_the_private_network_gets_jobs_where_its_beats_come_from(
    tmp_path: Path,
) -> None:
    """What it says of its own addresses is shown, and never dialled."""
    address = private_address()
    if not address:
        pytest.skip("this machine has no address on a private network")
    host = f"[{address}]" if ":" in address else address
    agent = FormerAgent("gpu-1", MODELS, host=address)
    with hub_process(tmp_path, OLLAMA_HOST="[::]:0") as hub, agent.serving():
        port = hub.url.rpartition(":")[2]
        status, told = agent.beat(f"http://{host}:{port}", ipv4="192.0.2.77")
        assert status == 200, told
        shown = hub.get("/nodes/gpu-1")
        assert job(hub) == 200

    assert shown["ipv4"] == "192.0.2.77"
    assert len(agent.jobs) == 1


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
def test_the_first_key_ends_it_unless_it_is_on(tmp_path: Path, mode: str) -> None:
    agent = FormerAgent("gpu-1", MODELS)
    with hub_process(tmp_path, OLLAMA_PROXY_HUB_LEGACY=mode) as hub, agent.serving():
        before, _ = asked(hub, agent)
        state = str(hub.state)
        made = run_cli("key", "add", "me", "--yes", OLLAMA_PROXY_STATE_DIR=state)
        assert made.returncode == 0, made.stderr
        with contextlib.suppress(AssertionError):
            hub.until(lambda: asked(hub, agent)[0] != before, 4.0)
        after, words = asked(hub, agent)

    assert (before, after) == {
        "auto": (200, 403),
        "on": (200, 200),
        "off": (403, 403),
    }[mode]
    assert after == 200 or "OLLAMA_PROXY_HUB_LEGACY" in words
