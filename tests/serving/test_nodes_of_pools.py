"""A proxy whose pool has nodes, on real sockets: what clients see of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.hub import HubBackend
from ollama_proxy.core.access.keys import Rights
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.nodes.beat import LoadedModel
from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.core.nodes.node_state import NodeState
from ollama_proxy.fleet.backend import Backend
from ollama_proxy.fleet.house import House
from ollama_proxy.fleet.node_facts import NodeFacts
from tests.fakes.callers import Callers, bearer
from tests.fakes.instance import InProcessBackend
from tests.fleet.houses import a_node
from tests.proxy import RunningProxy, generate, running_proxy

HUB = {"OLLAMA_PROXY_HUB": "true", "OLLAMA_PROXY_HUB_LISTEN": "off"}
ENTRY = {
    "name": "tiny:latest",
    "model": "tiny:latest",
    "modified_at": "2026-11-01T00:00:00Z",
    "size": 5,
    "digest": "ab" * 32,
    "details": {"family": "llama"},
}


class Home:
    """A proxy with a house, and machines that may be nodes of it."""

    def __init__(self, proxy: RunningProxy, machines: InProcessBackend) -> None:
        self.proxy = proxy
        self.machines = machines

    @property
    def house(self) -> House:
        return self.proxy.parts.pool.houses[0]

    async def node(self, node_id: str, **facts: Any) -> NodeFacts:
        """Have a machine of that name register itself."""
        launch_id = LaunchId(node_id)
        await self.machines.start(launch_id)
        seen = await self.machines.inspect(launch_id)
        facts = {"models": ("tiny",), "upstream": seen.upstream} | facts
        node = a_node(node_id, **facts)
        self.house.put(node)
        return node

    async def ask(
        self, path: str, body: dict[str, Any] | None = None, **headers: str
    ) -> tuple[int, Any, str]:
        method, session = "GET" if body is None else "POST", self.proxy.session
        url = f"{self.proxy.url}{path}"
        async with session.request(method, url, json=body, headers=headers) as reply:
            said = reply.headers.get("X-Ollama-Proxy", "")
            return reply.status, await reply.json(content_type=None), said


@contextlib.asynccontextmanager
async def home(folder: Path, **env: Any) -> AsyncIterator[Home]:
    machines = InProcessBackend()
    backends: dict[str, Backend] = {"house": HubBackend(Labels())}
    try:
        settings: dict[str, Any] = {**HUB, **env}
        async with running_proxy(folder, backends=backends, **settings) as proxy:
            yield Home(proxy, machines)
    finally:
        await machines.aclose()


async def test_a_request_is_answered_by_a_node(tmp_path: Path) -> None:
    async with home(tmp_path) as at:
        await at.node("attic")
        answers = [
            await at.ask("/api/generate", generate(stream=False)),
            await at.ask(
                "/v1/chat/completions",
                {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]},
            ),
            await at.ask("/api/show", {"model": "tiny"}),
        ]

    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert answers[0][1]["done"]


UNKNOWN = "model 'other' not found"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/api/generate", UNKNOWN),
        ("/api/chat", UNKNOWN),
        ("/api/embed", 'model "other" not found, try pulling it first'),
        ("/v1/chat/completions", UNKNOWN),
        ("/v1/messages", UNKNOWN),
    ],
)
@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_model_that_no_node_has_is_refused_as_ollama_does(
    tmp_path: Path, path: str, error: str, number: int
) -> None:
    body = {
        "model": "other",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "prompt": "hi",
        "input": "hi",
    }
    async with home(tmp_path, OLLAMA_PROXY_HOLD="30s") as at:
        for n in range(number):
            await at.node(f"n{n}")
        async with asyncio.timeout(10.0):
            status, told, _ = await at.ask(path, body)

    assert status == 404
    words = told["error"]
    assert (words if isinstance(words, str) else words["message"]) == error


async def test_while_every_node_is_away_a_request_gets_a_503_in_words(
    tmp_path: Path,
) -> None:
    async with home(tmp_path) as at:
        before = await at.node("attic")
        await at.node("cellar")
        for node_id in ("attic", "cellar"):
            away = replace(
                before, node_id=node_id, state=NodeState.OFFLINE, takes_work=False
            )
            at.house.put(away)
        status, told, _ = await at.ask("/api/generate", generate())
        body = (await at.ask("/status"))[1]

    assert status == 503
    assert told["error"] == (
        "no node that has the model 'tiny' takes requests: attic is offline, cellar is"
        " offline"
    )
    assert body["provisioning_status"] == "error"
    assert body["error"] == "none of the 2 nodes takes requests: 2 offline"


async def test_a_key_that_may_not_wake_is_not_the_reason_why_nodes_are_away(
    tmp_path: Path,
) -> None:
    callers: Any = Callers(ci=Rights(may_wake=False))
    async with home(tmp_path, identify=callers) as at:
        await at.node("attic")
        ok = (await at.ask("/api/generate", generate(stream=False), **bearer("ci")))[0]
        attic = at.house.nodes[0].facts
        at.house.put(replace(attic, state=NodeState.OFFLINE, takes_work=False))
        status, told, _ = await at.ask("/api/generate", generate(), **bearer("ci"))

    assert (ok, status) == (200, 503)
    assert told["error"].endswith("takes requests: attic is offline")


async def test_who_waits_for_an_instance_is_told_of_a_node(tmp_path: Path) -> None:
    async with home(tmp_path) as at:
        parts = at.proxy.parts
        waits = asyncio.ensure_future(parts.ready.wait(list(parts.pools), 60.0))
        await asyncio.sleep(0)
        await at.node("attic")
        found = await waits

    assert found is not None


async def test_before_any_node_has_registered_the_status_says_what_to_do(
    tmp_path: Path,
) -> None:
    async with home(tmp_path) as at:
        status, body, _ = await at.ask("/status")
        lists = [await at.ask("/api/tags"), await at.ask("/v1/models")]

    assert status == 200
    assert "ollama-proxy node" in body["error"]
    assert body["instance_status"] == "cold"
    assert [one[0] for one in lists] == [200, 200]
    assert lists[0][1] == {"models": []}


async def test_lists_come_from_the_beats_of_nodes_each_model_once(
    tmp_path: Path,
) -> None:
    async with home(tmp_path) as at:
        await at.node("attic", models=("tiny", "Phi"), boot_id="")
        full = await at.node("cellar")
        running = LoadedModel("tiny:latest", 7, 6, "2026-11-29T22:00:00Z")
        at.house.put(replace(full, models={"tiny:latest": ENTRY}, running=(running,)))
        tags = (await at.ask("/api/tags"))[1]
        openai = (await at.ask("/v1/models"))[1]
        loaded = (await at.ask("/api/ps"))[1]
        for facts in [node.facts for node in at.house.nodes]:
            at.house.put(replace(facts, takes_work=False))
        one = (await at.ask("/v1/models/phi"))[1]
        show = await at.ask("/api/show", {"model": "tiny"})

    names = [entry["name"] for entry in tags["models"]]
    assert sorted(names) == ["Phi:latest", "tiny:latest"]
    assert all(len(entry["digest"]) == 64 for entry in tags["models"])
    assert {entry["id"] for entry in openai["data"]} == set(names)
    assert one["id"] == "phi"
    assert (show[0], show[1]["details"]) == (200, ENTRY["details"])
    assert [entry["name"] for entry in loaded["models"]] == ["tiny:latest"]
    assert loaded["models"][0]["size_vram"] == 6
    assert loaded["models"][0]["digest"] == ENTRY["digest"]


async def test_status_shows_each_node(tmp_path: Path) -> None:
    async with home(tmp_path) as at:
        await at.node("attic", slots=3, foreign=1, cpu=0.25)
        body = (await at.ask("/status"))[1]
        metrics = await at.proxy.session.get(f"{at.proxy.url}/metrics")
        text = await metrics.text()

    [pool] = body["pools"]
    [node] = pool["instances"]
    told = {key: node[key] for key in ("node_id", "state", "draining", "models")}
    assert told == {
        "node_id": "attic",
        "state": "online",
        "draining": False,
        "models": 1,
    }
    assert (node["slots"], node["foreign"], node["cpu"]) == (3, 1, 0.25)
    assert pool["ready"] == 1
    assert body["provisioning_status"] == "ready"
    assert body["instance_status"] == "ready"
    assert 'ollama_proxy_pool_instances_ready{pool="default"} 1.0' in text
    assert "attic" not in text


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ({"OLLAMA_PROXY_BACKEND": "local"}, "OLLAMA_PROXY_BACKEND names it"),
        ({}, "OLLAMA_PROXY_HUB names it"),
    ],
)
async def test_status_says_what_names_the_backend_beside_nodes(
    tmp_path: Path, named: dict[str, str], reason: str
) -> None:
    backends: dict[str, Backend] = {
        "house": HubBackend(Labels()),
        "local": InProcessBackend(),
    }
    settings: dict[str, Any] = {**HUB, **named}
    async with running_proxy(tmp_path, backends=backends, **settings) as proxy:
        status = await proxy.status()

    assert status["backend_reason"] == reason


async def test_requests_that_need_one_wait_for_the_node_of_their_model(
    tmp_path: Path,
) -> None:
    async with home(tmp_path, OLLAMA_PROXY_HOLD="60s") as at:
        attic = await at.node("attic")
        at.house.put(replace(attic, state=NodeState.OFFLINE, takes_work=False))
        asked = asyncio.ensure_future(at.ask("/api/generate", generate(stream=False)))
        await at.proxy.until(lambda: at.proxy.parts.pool.waiting == 1)
        at.house.put(attic)
        status, _, _ = await asked

    assert status == 200


async def names_on(at: Home, node: NodeFacts) -> list[str]:
    assert node.upstream is not None
    async with at.proxy.session.get(f"{node.upstream.url}/api/tags") as reply:
        return sorted(one["name"] for one in (await reply.json())["models"])


async def test_what_is_pulled_is_on_one_node_and_usable_before_the_next_beat(
    tmp_path: Path,
) -> None:
    async with home(tmp_path) as at:
        nodes = [await at.node("attic"), await at.node("cellar")]
        pulled = await at.ask("/api/pull", {"model": "new", "stream": False})
        asked = await at.ask(
            "/api/generate", {"model": "new", "prompt": "hi", "stream": False}
        )
        having = [node for node in nodes if "new:latest" in await names_on(at, node)]

    assert (pulled[0], asked[0]) == (200, 200)
    assert len(having) == 1


async def test_a_model_is_deleted_on_every_node_that_has_it(tmp_path: Path) -> None:
    async with home(tmp_path) as at:
        nodes = [await at.node("attic"), await at.node("cellar")]
        url = f"{at.proxy.url}/api/delete"
        async with at.proxy.session.delete(url, json={"model": "tiny"}) as reply:
            status = reply.status
        left = [await names_on(at, node) for node in nodes]

    assert status == 200
    assert left == [[], []]


async def test_a_model_is_made_where_its_source_is(tmp_path: Path) -> None:
    async with home(tmp_path) as at:
        for n in range(3):
            await at.node(f"n{n}", models=("other",))
        cellar = await at.node("cellar")
        body = {"model": "mine", "from": "tiny", "stream": False}
        status, _, _ = await at.ask("/api/create", body)
        names = await names_on(at, cellar)

    assert status == 200
    assert "mine:latest" in names


async def test_a_copy_is_usable_before_the_next_beat(tmp_path: Path) -> None:
    async with home(tmp_path) as at:
        await at.node("attic")
        body = {"source": "tiny", "destination": "mine"}
        async with at.proxy.session.post(
            f"{at.proxy.url}/api/copy", json=body
        ) as reply:
            status = reply.status
        asked = await at.ask("/api/show", {"model": "mine"})

    assert (status, asked[0]) == (200, 200)


async def test_a_request_to_change_a_model_that_no_node_has_is_refused(
    tmp_path: Path,
) -> None:
    async with home(tmp_path) as at:
        await at.node("attic")
        url = f"{at.proxy.url}/api/delete"
        async with at.proxy.session.delete(url, json={"model": "other"}) as reply:
            told = reply.status, await reply.json()

    assert told == (404, {"error": "model 'other' not found"})


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/v1/chat/completions"])
async def test_what_former_agents_do_not_take_is_refused_with_what_to_do(
    tmp_path: Path, path: str
) -> None:
    said = [{"role": "user", "content": "hi"}]
    async with home(tmp_path) as at:
        await at.node("attic", serves_all=False)
        body = {"model": "tiny", "prompt": "hi", "system": "be brief", "messages": said}
        status, told, _ = await at.ask(path, body)

    words = told["error"] if path.startswith("/api/") else told["error"]["message"]
    assert status == 503
    assert "have not joined the hub" in words
    assert "node-token" in words


async def test_nodes_that_have_not_joined_say_so_to_what_they_can_not_take(
    tmp_path: Path,
) -> None:
    async with home(tmp_path) as at:
        await at.node("attic", serves_all=False)
        pulled = await at.ask("/api/pull", {"model": "new", "stream": False})
        planned = await at.ask("/status")

    assert pulled[0] == 503
    assert "ollama-proxy node-token" in pulled[1]["error"]
    [idle] = [one for one in planned[1]["pools"][0]["plan"] if "is ready" in one]
    assert int(idle.rpartition("idle for ")[2].removesuffix(" s.")) < 60
