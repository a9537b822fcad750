"""What a hub may be made to call: nothing that did not prove to be the node."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ollama_proxy.core.nodes.join_request import JoinRequest, join_body
from ollama_proxy.core.nodes.node_keys import digest_of
from tests.hub.rig import key_id, key_text
from tests.proxy import ORDERS, RunningProxy, running_proxy

CHAT = {"model": "llama3", "messages": [{"role": "user", "content": "a secret"}]}


@dataclass
class Victim:
    """A server that knows nothing of the hub; ``seen``: all that it is sent."""

    answer: bytes = b""
    port: int = 0
    seen: bytearray = field(default_factory=bytearray)

    @property
    def requests(self) -> int:
        return self.seen.count(b"HTTP/1.1\r\n")


@contextlib.asynccontextmanager
async def victim(answer: bytes = b"") -> AsyncIterator[Victim]:
    one = Victim(answer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                one.seen += data
                writer.write(one.answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()


@contextlib.asynccontextmanager
async def hub(folder: Path, listen: str = ":8000") -> AsyncIterator[RunningProxy]:
    async with running_proxy(
        folder, OLLAMA_PROXY_HUB="true", OLLAMA_PROXY_HUB_LISTEN=listen
    ) as proxy:
        yield proxy


async def join(proxy: RunningProxy) -> dict[str, str]:
    """Let a machine join; return the header that shows its key."""
    token, digest = await proxy.node_token(), digest_of(key_text())
    body = join_body(JoinRequest(token, "box", key_id(), digest))
    async with proxy.session.post(f"{proxy.url}/nodes/join", data=body) as joined:
        assert joined.status == 200, await joined.text()
    return {"Authorization": f"Bearer {key_text()}"}


def beat(port: int, **changed: Any) -> dict[str, Any]:
    models = [{"name": "llama3:latest", "model": "llama3:latest"}]
    agent = {"boot_id": "0" * 32, "seq": 1, "scheme": "http", "models": models}
    return {
        "node_id": "box",
        "port": port,
        "models": ["llama3:latest"],
        "agent": agent,
        **changed,
    }


async def send(
    proxy: RunningProxy, body: dict[str, Any], fields: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    url = f"{proxy.hub_url}/nodes/heartbeat"
    async with proxy.session.post(url, json=body, headers=fields) as answer:
        return answer.status, await answer.json()


async def shown(proxy: RunningProxy) -> dict[str, Any]:
    async with proxy.session.get(f"{proxy.hub_url}/nodes/box") as answer:
        node: dict[str, Any] = await answer.json()
        return node


async def chat_status(proxy: RunningProxy) -> int:
    async with proxy.session.post(f"{proxy.url}/api/chat", json=CHAT) as answer:
        await answer.read()
        return answer.status


async def until_asked(proxy: RunningProxy) -> None:
    """Wait until the hub has made up its mind about the node."""
    async with asyncio.timeout(30):
        while "found no proof" not in (await shown(proxy))["problem"]:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"status":"ok"}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: REDIRECT\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: REDIRECT\r\n"
        b"Content-Length: 0\r\n\r\n",
    ],
    ids=["Ollama-like", "empty", "mail", "302", "307"],
)
async def test_a_server_that_is_not_the_node_gets_one_question_and_nothing_else(
    answer: bytes, tmp_path: Path
) -> None:
    async with hub(tmp_path) as proxy, victim(answer) as one, victim() as two:
        target = f"http://127.0.0.1:{two.port}/latest/meta-data/".encode()
        one.answer = answer.replace(b"REDIRECT", target)
        fields = await join(proxy)
        assert (await send(proxy, beat(one.port), fields))[0] == 200
        await until_asked(proxy)
        for seq in range(2, 6):  # it may beat as often as it likes
            body = beat(one.port)
            body["agent"]["seq"] = seq
            await send(proxy, body, fields)
        assert await chat_status(proxy) == 503
        assert bytes(one.seen).startswith(b"GET /healthz?nonce=")
        assert one.requests == 1
        assert b"uthorization" not in one.seen
        assert b"secret" not in one.seen
        assert two.seen == b""


@pytest.mark.parametrize(
    "named",
    [
        {"ipv4": "169.254.169.254"},
        {"ipv6": "::ffff:169.254.169.254"},
        {"ipv6": "fd00:ec2::254"},
        {"ipv4": "0.0.0.0"},
        {"ipv4": "224.0.0.1", "ipv6": "ff02::1"},
    ],
)
async def test_an_address_that_is_never_called_is_not(
    named: dict[str, str], tmp_path: Path
) -> None:
    async with hub(tmp_path) as proxy:
        assert proxy.parts.hub is not None
        asked: list[str] = []

        async def prove(urls: list[str], *_: object) -> str:
            asked.extend(urls)
            return ""

        proxy.parts.hub.reach._prove = prove  # type: ignore[assignment]
        assert (await send(proxy, beat(8001, **named), await join(proxy)))[0] == 200
        await until_asked(proxy)
        assert asked == ["http://127.0.0.1:8001"]


@pytest.mark.parametrize(
    "named",
    [
        {"ipv4": "metadata.google.internal"},
        {"ipv4": "2852039166"},
        {"ipv4": "0xa9fea9fe"},
        {"ipv4": "169.254.169.254:80"},
        {"ipv6": "[::1]"},
        {"ipv4": "127.0.0.1/8"},
    ],
)
async def test_what_is_no_address_is_refused_in_a_sentence(
    named: dict[str, str], tmp_path: Path
) -> None:
    async with hub(tmp_path) as proxy:
        status, told = await send(proxy, beat(8001, **named), await join(proxy))
        assert status == 422
        assert next(iter(named)) in told["detail"]


async def test_a_former_agent_is_called_where_it_is_and_nowhere_else(
    tmp_path: Path,
) -> None:
    former = {"node_id": "box", "port": 1, "models": ["llama3"], "ipv4": "10.0.0.1"}
    async with hub(tmp_path) as proxy:
        assert (await send(proxy, former, {}))[0] == 200
        assert (await shown(proxy))["url"] == "http://127.0.0.1:1"


async def test_a_former_agent_cannot_have_the_hub_call_itself(tmp_path: Path) -> None:
    former = {"node_id": "box", "port": 8000, "models": ["llama3"]}
    async with hub(tmp_path, "127.0.0.1:8000") as proxy:
        assert (await send(proxy, former, {}))[0] == 200
        assert "the hub itself" in (await shown(proxy))["problem"]
        assert await chat_status(proxy) in {404, 503}


@pytest.mark.parametrize("first", ["a key of a client", "a machine that joins"])
async def test_a_former_agent_gets_nothing_from_the_moment_of_the_first_key_on(
    first: str, tmp_path: Path
) -> None:
    former = {"node_id": "old", "port": 1, "models": ["llama3"]}
    async with hub(tmp_path, "127.0.0.1:8000") as proxy:
        assert (await send(proxy, former, {}))[0] == 200
        assert proxy.parts.hub is not None
        (node,) = proxy.parts.hub.registry
        assert node.link.upstream is not None
        if first == "a machine that joins":
            await join(proxy)
        else:
            url = f"{proxy.url}/-/keys?yes=1"
            words = {"name": "laptop"}
            async with proxy.session.post(url, json=words, headers=ORDERS) as made:
                assert made.status == 201
        (node,) = proxy.parts.hub.registry
        assert node.link.upstream is None
        assert "node-token" in node.link.fault
        assert (await send(proxy, former, {}))[0] == 403


async def test_a_new_token_names_the_nodes_that_its_joining_ends(
    tmp_path: Path,
) -> None:
    former = {"node_id": "old", "port": 1, "models": ["llama3"]}
    async with hub(tmp_path, "127.0.0.1:8000") as proxy:
        url = f"{proxy.url}/-/node-tokens"

        async def ended() -> object:
            async with proxy.session.post(url, headers=ORDERS) as made:
                return (await made.json())["ends_with_joining"]

        assert await ended() == []
        await send(proxy, former, {})
        assert await ended() == ["old"]
        await join(proxy)
        assert await ended() == []


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "x-forwarded-proto", "Forwarded", "VIA", "x-real-ip"]
)
async def test_a_relayed_beat_without_a_key_is_refused_on_both_ports(
    name: str, tmp_path: Path
) -> None:
    former = {"node_id": "old", "port": 1, "models": ["llama3"]}
    async with hub(tmp_path, "127.0.0.1:8000") as proxy:
        for url in (proxy.url, proxy.hub_url):
            to = f"{url}/nodes/heartbeat"
            async with proxy.session.post(to, json=former, headers={name: ""}) as told:
                assert told.status == 403
                assert "relays this beat" in (await told.json())["detail"]
            async with proxy.session.post(to, json=former) as told:
                assert told.status == 200


async def test_a_key_is_read_whatever_the_letters_of_its_header(tmp_path: Path) -> None:
    async with hub(tmp_path) as proxy:
        key = (await join(proxy))["Authorization"]
        for url in (proxy.url, proxy.hub_url):
            for fields in (
                {"authorization": key},
                {"AUTHORIZATION": key.replace("Bearer ", "bearer  ")},
            ):
                to, body = f"{url}/nodes/heartbeat", beat(8001)
                async with proxy.session.post(to, json=body, headers=fields) as told:
                    assert told.status == 200, await told.text()
            wrong = {"Authorization": f"{key}x"}
            async with proxy.session.post(to, json=body, headers=wrong) as told:
                assert told.status == 401


async def test_a_hub_whose_authority_is_gone_says_that_its_nodes_must_join_again(
    tmp_path: Path,
) -> None:
    async with hub(tmp_path) as proxy:
        await join(proxy)
    shutil.rmtree(tmp_path / "hub")

    with capture_logs() as lines:
        async with hub(tmp_path):
            pass

    (warning,) = (one for one in lines if one["event"] == "hub.authority_lost")
    assert "1 node has joined" in warning["reason"]
    with capture_logs() as lines:
        async with hub(tmp_path / "other"):
            pass
    assert "hub.authority_lost" not in {one["event"] for one in lines}
