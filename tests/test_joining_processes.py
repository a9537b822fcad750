"""Hub and agent as processes: joined by one line, killed in between, secrets kept."""

import asyncio
import contextlib
import json
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import pytest
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.core.nodes.node_keys import read_join_token
from ollama_proxy.simulator.server import Manners, build_simulator
from tests.black_box import (
    ProxyProcess,
    clean_environment,
    forked_proxy,
    run_cli,
)
from tests.ports import held_port


@dataclass
class Rig:
    """One hub's state and port, and one machine's."""

    folder: Path
    port: int
    ollama: str

    @property
    def hub_state(self) -> Path:
        return self.folder / "hub-state"

    @property
    def node_state(self) -> Path:
        return self.folder / "node-state"

    @contextlib.contextmanager
    def hub(self) -> Iterator[ProxyProcess]:
        env = {
            "OLLAMA_PROXY_HUB": "true",
            "OLLAMA_PROXY_HUB_LISTEN": f"127.0.0.1:{self.port}",
        }
        with forked_proxy(self.hub_state, **env) as hub:
            yield hub

    def line(self) -> str:
        done = run_cli("node-token", OLLAMA_PROXY_STATE_DIR=str(self.hub_state))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @contextlib.contextmanager
    def agent(self, line: str = "") -> Iterator["subprocess.Popen[str]"]:
        """Run an agent with the variables of a line that was pasted."""
        words = shlex.split(line)
        pasted = dict(word.split("=", 1) for word in words if "=" in word)
        env = {
            "SERVER_URL": f"https://127.0.0.1:{self.port}",
            "NODE_ID": "box",
            "NODE_PORT": "0",
            "HEARTBEAT_INTERVAL": "1",
            "OLLAMA_BASE_URL": self.ollama,
            "OLLAMA_PROXY_STATE_DIR": str(self.node_state),
        }
        log = (self.folder / "agent.log").open("a")
        with (
            log,
            subprocess.Popen(
                [sys.executable, "-m", "ollama_proxy", "node"],
                env=clean_environment() | env | pasted,
                stdout=log,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    def logs(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("*.log"))


@pytest.fixture
async def rig(tmp_path: Path, aiohttp_server: AiohttpServer) -> Rig:
    app = build_simulator(Manners(rate=500.0, vram_share=1.0), models=["tiny"])
    server = await aiohttp_server(app, auto_decompress=False, shutdown_timeout=0.1)
    return Rig(tmp_path, held_port(), str(server.make_url("")).rstrip("/"))


async def chat(hub: ProxyProcess) -> str:
    """Chat through the hub, as soon as the machine is there; return the answer."""
    job = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            async with session.post(f"{hub.url}/api/chat", json=job) as answer:
                text = await answer.text()
                if answer.status == 200:
                    return text
            await asyncio.sleep(0.2)


def node_key(rig: Rig) -> str:
    kept = json.loads((rig.node_state / "node-membership.json").read_bytes())
    return str(kept["key"])


async def test_one_line_joins_a_machine_and_no_secret_is_left_behind(rig: Rig) -> None:
    with rig.hub() as hub:
        line = await asyncio.to_thread(rig.line)
        found = re.search(r"TOKEN=(\S+)", line)
        assert found is not None
        given = read_join_token(found[1])
        assert given is not None
        with rig.agent(line) as agent:
            assert '"done":true' in (await chat(hub)).replace(" ", "")
            commands = [
                word
                for process in psutil.process_iter(["cmdline"])
                for word in process.info["cmdline"] or ()
            ]
            node = await asyncio.to_thread(hub.get, "/nodes/box")
            status = await asyncio.to_thread(hub.get, "/status")
            assert agent.poll() is None
    key = node_key(rig)
    secrets = {"token": given.sent[13:], "key": key[21:]}
    hubs_files = [path for path in rig.hub_state.rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in hubs_files)
    nodes_files = {path.name: path.read_text() for path in rig.node_state.iterdir()}
    for secret in secrets.values():
        assert secret not in rig.logs()
        assert secret not in " ".join(commands)
        assert secret not in f"{node}{status}"
        assert secret.encode() not in kept
    assert given.sent[13:] not in "".join(nodes_files.values())
    holders = {name for name, text in nodes_files.items() if key[21:] in text}
    assert holders == {"node-membership.json"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in rig.node_state.iterdir()}
    assert modes == {0o600}
    for name in ("authority.key", "hub.key"):
        assert stat.S_IMODE((rig.hub_state / "hub" / name).stat().st_mode) == 0o600


async def test_a_machine_that_joined_is_reached_through_its_tunnels_over_tls(
    rig: Rig,
) -> None:
    with rig.hub() as hub:
        line = await asyncio.to_thread(rig.line)
        with rig.agent(f"NODE_TUNNEL=true {line}"):
            await chat(hub)
            async with asyncio.timeout(30):
                while True:
                    node = await asyncio.to_thread(hub.get, "/nodes/box")
                    if "tunnel" in str(node["url"]):
                        break
                    await asyncio.sleep(0.1)
            await chat(hub)


async def test_hub_and_agent_are_killed_at_any_moment_and_go_on_with_one_token(
    rig: Rig,
) -> None:
    with rig.hub() as hub:
        line = await asyncio.to_thread(rig.line)
        hub.kill()
    for number in range(4):
        with contextlib.ExitStack() as stack:
            hub = stack.enter_context(rig.hub())
            agent = stack.enter_context(rig.agent(line))
            await asyncio.sleep(0.4 + 0.2 * number)
            (agent.kill if number % 2 else hub.kill)()
            await asyncio.sleep(0.3 if number % 2 else 0.0)
            hub.kill()
    with rig.hub() as hub, rig.agent(line):
        await chat(hub)
        first = node_key(rig)
        hub.kill()
    with rig.hub() as hub, rig.agent():  # neither needs the token any more
        await chat(hub)
    assert node_key(rig) == first
    with rig.hub():
        thief = Rig(rig.folder / "thief", rig.port, rig.ollama)
        thief.folder.mkdir()
        with thief.agent(line) as agent:
            code = await asyncio.to_thread(agent.wait, 60)
        assert code == 2
        assert "each is for one joining" in thief.logs()


async def test_a_key_of_a_node_opens_no_other_route_and_no_other_node(
    rig: Rig,
) -> None:
    with rig.hub() as hub:
        with rig.agent(await asyncio.to_thread(rig.line)):
            await chat(hub)
        key = node_key(rig)
        fields = {"Authorization": f"Bearer {key}"}
        beat = {"node_id": "other", "port": 8001, "models": ["tiny"]}
        async with aiohttp.ClientSession(headers=fields) as session:
            for method, path in ROUTES:
                async with session.request(method, f"{hub.url}{path}", json={}) as told:
                    assert told.status == 403, (path, await told.text())
            url = f"{hub.url}/nodes/heartbeat"
            async with session.post(url, json=beat) as told:
                assert told.status == 403, await told.text()
            async with session.get(f"{hub.url}/nodes/tunnel?node_id=other") as told:
                assert told.status in {400, 426}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=beat | {"node_id": "box"}) as told,
        ):
            assert told.status == 403  # keys are needed since the first one


ROUTES = [
    ("POST", "/api/chat"),
    ("POST", "/api/generate"),
    ("POST", "/api/embed"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/messages"),
    ("GET", "/api/tags"),
    ("GET", "/api/ps"),
    ("GET", "/v1/models"),
    ("POST", "/api/pull"),
    ("DELETE", "/api/delete"),
    ("POST", "/jobs"),
    ("GET", "/nodes"),
    ("GET", "/nodes/box"),
    ("GET", "/status"),
    ("GET", "/metrics"),
    ("GET", "/-/"),
    ("GET", "/-/nodes"),
    ("DELETE", "/-/nodes/box"),
    ("POST", "/-/nodes/box/drain"),
    ("GET", "/-/node-tokens"),
    ("POST", "/-/node-tokens"),
    ("GET", "/-/keys"),
    ("POST", "/-/keys"),
    ("POST", "/-/stop"),
    ("POST", "/-/wake"),
    ("GET", "/-/journal"),
    ("GET", "/-/usage"),
]
