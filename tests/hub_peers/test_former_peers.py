"""Agents and clients of the former hub, unchanged, with ours: no keys, no settings.

They are written from what was documented of it, and know nothing of ours.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.black_box import ProxyProcess, forked_proxy
from tests.hub_peers.former_agent import FormerAgent, Manner

JOB = {
    "model": "llama3",
    "prompt": "hi",
    "options": {
        "temperature": 0.1,
        "top_p": 0.9,
        "top_k": 40,
        "num_predict": 9,
        "repeat_penalty": 1.1,
        "seed": 1,
    },
}
NO_NODES = {"detail": "No healthy nodes available for requested model"}
FORMER_KEYS = {
    "node_id",
    "ipv4",
    "ipv6",
    "port",
    "models",
    "metadata",
    "load",
    "last_seen",
    "status",
    "active_jobs",
    "failure_count",
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ProxyProcess]:
    with hub_process(tmp_path) as hub:
        yield hub


@contextlib.contextmanager
def hub_process(folder: Path, **env: str) -> Iterator[ProxyProcess]:
    settings = {"OLLAMA_PROXY_HUB": "true", "OLLAMA_PROXY_HUB_LISTEN": "off"} | env
    with forked_proxy(folder / "hub", **settings) as hub:
        yield hub


def job(hub: ProxyProcess, **changes: object) -> tuple[int, Any]:
    """Return status and body of a job without a stream."""
    status, body = hub.post("/jobs", {**JOB, "stream": False, **changes})
    return status, json.loads(body)


def node(hub: ProxyProcess, node_id: str) -> dict[str, Any]:
    return hub.get(f"/nodes/{node_id}")


def words(lines: list[str]) -> str:
    """Return the text of a stream whose empty lines are left out."""
    return "".join(json.loads(line)["response"] for line in lines if line.strip())


def test_a_hub_is_well_as_the_former_one_was(hub: ProxyProcess) -> None:
    assert hub.get("/healthz")["status"] == "ok"


def test_a_node_is_listed_with_the_former_keys(hub: ProxyProcess) -> None:
    with FormerAgent("gpu-1", ("llama3:latest", "tiny:1b")).beating(hub.url) as agent:
        listed = httpx.get(f"{hub.url}/nodes").json()
        one = httpx.get(f"{hub.url}/nodes/gpu-1").json()

    assert [told["node_id"] for told in listed] == ["gpu-1"]
    for told in (listed[0], one):
        assert told.keys() >= FORMER_KEYS
        assert told["port"] == agent.port
        assert told["models"] == ["llama3:latest", "tiny:1b"]
        assert told["metadata"] == {"hostname": "host-of-gpu-1"}
        assert told["load"] == {"cpu": 0.1, "memory": 0.2}
        assert told["status"] == "online"
        assert (told["active_jobs"], told["failure_count"]) == (0, 0)
        assert told["last_seen"].endswith("Z")


def test_a_node_that_nobody_knows_is_404(hub: ProxyProcess) -> None:
    answer = httpx.get(f"{hub.url}/nodes/nobody")

    assert answer.status_code == 404
    assert isinstance(answer.json()["detail"], str)


def test_a_job_comes_to_the_agent_as_it_was_sent(hub: ProxyProcess) -> None:
    with FormerAgent("gpu-1", ("llama3:latest",)).beating(hub.url) as agent:
        status, answer = job(hub)

    assert status == 200
    assert answer["response"] == "gpu-1-0 gpu-1-1 gpu-1-2 "
    (got,) = agent.jobs
    assert {key: got[key] for key in JOB} == JOB
    assert got.keys() == {"model", "prompt", "options", "stream"}


@pytest.mark.parametrize("path", ["/jobs", "/api/generate"])
@pytest.mark.parametrize("streams", [True, False])
def test_a_former_agent_gets_no_key_that_a_client_sends_unasked(
    hub: ProxyProcess, path: str, streams: bool
) -> None:
    """Anybody on the network may have registered it; ollama's library sends its key."""
    secrets = {
        "Authorization": "Bearer of-ollama.com",
        "x-api-key": "of-another",
        "Cookie": "of=a-third",
    }
    with FormerAgent("gpu-1", ("llama3:latest",)).beating(hub.url) as agent:
        answer = httpx.post(
            f"{hub.url}{path}", json={**JOB, "stream": streams}, headers=secrets
        )

    assert answer.status_code == 200
    assert "gpu-1-2" in answer.text
    assert agent.jobs == [{**JOB, "stream": streams}]
    assert "of-" not in agent.headers[0]
    assert "a-third" not in agent.headers[0]
    assert "python-httpx" in agent.headers[0]


def _by_curl(url: str, body: str) -> list[str]:
    head = "Content-Type: application/json"
    return _printed("curl", "-sNX", "POST", url, "-H", head, "-d", body)


def _by_requests(url: str, body: str) -> list[str]:
    script = """
import json, sys, requests
url, job = sys.argv[1], json.loads(sys.argv[2])
with requests.post(url, json=job, stream=True) as answer:
    answer.raise_for_status()
    for line in answer.iter_lines():
        if line:
            print(line.decode(), flush=True)
"""
    return _printed(sys.executable, "-c", script, url, body)


def _by_httpx(url: str, body: str) -> list[str]:
    with httpx.stream("POST", url, json=json.loads(body)) as answer:
        answer.raise_for_status()
        return [line for line in answer.iter_lines() if line]


def _by_node(url: str, body: str) -> list[str]:
    script = """
const [url, body] = process.argv.slice(1);
const headers = {"Content-Type": "application/json"};
const answer = await fetch(url, {method: "POST", body, headers});
if (!answer.ok) throw new Error(`${answer.status}`);
for await (const part of answer.body) process.stdout.write(part);
"""
    return _printed("node", "--input-type=module", "-e", script, url, body)


def _printed(*command: str) -> list[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


CLIENTS = {
    "curl": _by_curl,
    "requests": _by_requests,
    "httpx": _by_httpx,
    "node": _by_node,
}


@pytest.mark.parametrize("pause_s", [0.0, 6.0], ids=["at once", "after six seconds"])
@pytest.mark.parametrize("client", CLIENTS)
def test_every_documented_client_reads_the_stream_of_a_job(
    hub: ProxyProcess, client: str, pause_s: float
) -> None:
    """httpx gives up after five seconds without a byte, by default."""
    if client in {"curl", "node"} and shutil.which(client) is None:
        pytest.skip(f"there is no {client}")
    manner = Manner(first_byte_s=pause_s)
    with FormerAgent("gpu-1", ("llama3:latest",), manner).beating(hub.url):
        lines = CLIENTS[client](f"{hub.url}/jobs", json.dumps(JOB))

    assert words(lines) == "gpu-1-0 gpu-1-1 gpu-1-2 "
    assert json.loads([line for line in lines if line.strip()][-1])["done"]


def test_a_stream_comes_as_it_is_made(hub: ProxyProcess) -> None:
    manner = Manner(words=3, word_s=0.4)
    with (
        FormerAgent("gpu-1", ("llama3:latest",), manner).beating(hub.url),
        httpx.stream("POST", f"{hub.url}/jobs", json=JOB, timeout=30) as answer,
    ):
        came = [time.perf_counter() for line in answer.iter_lines() if line]

    assert len(came) == 4
    assert came[-1] - came[0] > 0.8


def test_a_model_that_no_node_has_is_503_in_the_former_words(
    hub: ProxyProcess,
) -> None:
    with FormerAgent("gpu-1", ("llama3:latest",)).beating(hub.url):
        for streams in (True, False):
            answer = httpx.post(
                f"{hub.url}/jobs", json={**JOB, "model": "other", "stream": streams}
            )
            assert (answer.status_code, answer.json()) == (503, NO_NODES)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"prompt": "hi"}', b'{"model": 1, "prompt": "hi"}']
)
def test_what_is_no_job_is_400(hub: ProxyProcess, body: bytes) -> None:
    answer = httpx.post(f"{hub.url}/jobs", content=body)

    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)


def test_a_node_that_fails_is_passed_over_and_after_three_gets_no_job(
    hub: ProxyProcess,
) -> None:
    failing = FormerAgent("bad", ("llama3:latest",), Manner(status=502))
    with (
        failing.beating(hub.url),
        FormerAgent("good", ("llama3:latest",)).beating(hub.url),
    ):
        for _ in range(24):
            status, answer = job(hub)
            assert status == 200
            assert answer["response"].startswith("good-")
        told = node(hub, "bad")
        healthy = node(hub, "good")

    assert len(failing.jobs) <= 3
    assert healthy["failure_count"] == 0
    assert told["failure_count"] == len(failing.jobs)


def test_an_agent_that_takes_the_hub_for_a_stranger_is_passed_over(
    hub: ProxyProcess,
) -> None:
    refusing = FormerAgent("bad", ("llama3:latest",), Manner(status=403))
    with (
        refusing.beating(hub.url),
        FormerAgent("good", ("llama3:latest",)).beating(hub.url),
    ):
        for _ in range(6):
            assert job(hub)[1]["response"].startswith("good-")

    assert len(refusing.jobs) in range(1, 4)


def test_what_a_former_agent_refuses_is_told_in_its_words(hub: ProxyProcess) -> None:
    with FormerAgent("gpu-1", ("llama3:latest",), Manner(status=422)).beating(hub.url):
        status, answer = job(hub)

    assert (status, answer["detail"]) == (422, "no gpu-1")


def test_three_failures_in_a_row_degrade_a_node(hub: ProxyProcess) -> None:
    failing = FormerAgent("bad", ("llama3:latest",), Manner(status=502))
    with failing.beating(hub.url):
        answers = [job(hub) for _ in range(4)]
        told = node(hub, "bad")

    assert len(failing.jobs) == 3
    assert (told["status"], told["failure_count"]) == ("degraded", 3)
    for status, answer in answers[:3]:
        assert status == 503
        detail = answer["detail"]
        assert detail["message"] == "All candidate nodes failed to execute the job"
        assert len(detail["job_id"]) == 36
        (error,) = detail["errors"]
        assert (error["node_id"], error["status"]) == ("bad", 502)
        assert error["message"] == "answered 502: no bad"  # in the agent's own words
    assert answers[3] == (503, NO_NODES)


def test_an_agent_that_is_gone_is_passed_over(hub: ProxyProcess) -> None:
    gone = FormerAgent("gone", ("llama3:latest",))
    with gone.serving():
        pass
    assert gone.beat(hub.url)[0] == 200
    with FormerAgent("good", ("llama3:latest",)).beating(hub.url):
        for _ in range(6):
            assert job(hub)[1]["response"].startswith("good-")


def test_a_node_that_breaks_off_before_its_first_word_is_passed_over(
    hub: ProxyProcess,
) -> None:
    broken = FormerAgent("bad", ("llama3:latest",), Manner(breaks_after=0))
    with (
        broken.beating(hub.url),
        FormerAgent("good", ("llama3:latest",)).beating(hub.url),
    ):
        for _ in range(8):
            lines = _by_httpx(f"{hub.url}/jobs", json.dumps(JOB))
            assert words(lines).startswith("good-")

    assert len(broken.jobs) <= 3


def test_a_node_that_is_silent_is_offline_and_then_forgotten(tmp_path: Path) -> None:
    with hub_process(
        tmp_path, HEARTBEAT_TTL_SECONDS="2", HEARTBEAT_OFFLINE_SECONDS="8"
    ) as hub:
        agent = FormerAgent("gpu-1", ("llama3:latest",))
        with agent.serving():
            agent.beat(hub.url)
            assert node(hub, "gpu-1")["status"] == "online"
            hub.until(lambda: node(hub, "gpu-1")["status"] == "offline")
            hub.until(lambda: job(hub) == (503, NO_NODES), 5.0)
            hub.until(lambda: not hub.get("/nodes"))
            assert agent.beat(hub.url)[0] == 200
            assert job(hub)[0] == 200


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_leaves_once_it_has_all_has_not_given_its_job_up(
    hub: ProxyProcess, streams: bool
) -> None:
    """It had empty lines before, after which the answer could wait for its end."""
    with FormerAgent("gpu-1", ("llama3:latest",), Manner(first_byte_s=5.0)).beating(
        hub.url
    ):
        answer = httpx.post(f"{hub.url}/jobs", json={**JOB, "stream": streams})
        hub.until(lambda: '"route":"/jobs"' in hub.log.read_text())

    assert answer.text.startswith("\n")
    (line,) = [one for one in hub.log.read_text().splitlines() if '"/jobs"' in one]
    assert json.loads(line)["outcome"] == "relayed"
