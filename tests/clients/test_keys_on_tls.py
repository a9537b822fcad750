"""The official clients with a key, from cold, on TLS of a private authority.

Straight to the proxy, and through a real nginx and a real Caddy in front of it.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from ollama_proxy.base import log
from ollama_proxy.core.access.hosts import HostPolicy
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.server.machine_hosts import hosts_of_this_machine
from ollama_proxy.simulator.server import Manners
from tests.certificates import PrivateCa, private_ca
from tests.clients.kits import (
    KITS,
    NODE,
    AnthropicKit,
    Headers,
    Kit,
    OpenAIKit,
)
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy
from tests.real_gateways import (
    CADDY,
    NAME,
    NGINX,
    Command,
    caddy_command,
    gateway,
    nginx_command,
)

WAIT = {"Prefer": "wait=60"}
AGENT = "who-asks/1"


def bearer(library: str) -> Callable[[str], tuple[Kit, Headers]]:
    return lambda key: (KITS[library], {"Authorization": f"Bearer {key}"})


WITH_KEY: dict[str, Callable[[str], tuple[Kit, Headers]]] = {
    "ollama": bearer("ollama"),
    "langchain": bearer("langchain"),
    "ollama-js": bearer("ollama-js"),
    "openai": lambda key: (OpenAIKit(key), {}),
    "anthropic": lambda key: (AnthropicKit(key), {}),
}
LIBRARIES = [name for name in WITH_KEY if name != "ollama-js" or NODE is not None]


class Way:
    """A way to a proxy: ``command`` runs the gateway before it, if there is one."""

    def __init__(self, command: Command | None, *, is_tls: bool) -> None:
        self.command, self.is_tls = command, is_tls


WAYS = {
    "straight": Way(None, is_tls=True),
    "nginx": Way(nginx_command, is_tls=False),
    "nginx on TLS to the proxy": Way(nginx_command, is_tls=True),
    "caddy": Way(caddy_command, is_tls=False),
}


def _is_missing(name: str) -> bool:
    return NGINX is None if "nginx" in name else name == "caddy" and CADDY is None


ways = pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            way,
            id=name,
            marks=pytest.mark.skipif(_is_missing(name), reason=f"there is no {name}"),
        )
        for name, way in WAYS.items()
    ],
)


@pytest.fixture
def ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrivateCa:
    """An authority that clients are told of as docs/tls.md says."""
    made = private_ca(tmp_path / "tls")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(made.authority))
    return made


@contextlib.asynccontextmanager
async def reached(
    folder: Path, way: Way, ca: PrivateCa, hosts: HostPolicy | None = None
) -> AsyncIterator[tuple[RunningProxy, str]]:
    """Run a proxy that needs keys, with its gateway; yield it, and where to ask."""
    (folder / "gateway").mkdir()
    async with running_proxy(
        folder / "state",
        backend=InProcessBackend(Manners(load_s=0.3, rate=200.0)),
        tls=ca if way.is_tls else None,
        hosts=hosts,
        OLLAMA_PROXY_AUTH="keys",
        OLLAMA_PROXY_TRUSTED_PROXIES="127.0.0.1",
    ) as proxy:
        if way.command is None:
            yield proxy, proxy.url
            return
        async with gateway(way.command, folder / "gateway", proxy.url, ca) as url:
            yield proxy, url


def key(proxy: RunningProxy) -> str:
    """Make a key; return its text."""
    _, text = proxy.parts.gateway.changes.make({"name": "laptop"}, Caller())
    return text


async def with_each_library(asks: Callable[[str], Awaitable[None]]) -> None:
    """Have each library ask through the same gateway; raise what was wrong with any.

    The start of a gateway takes a second of the processor, a request little.
    """
    wrong = []
    for library in LIBRARIES:
        try:
            await asks(library)
        except Exception as error:
            error.add_note(f"with {library}")
            wrong.append(error)
    if wrong:
        raise ExceptionGroup("some libraries fail", wrong)


@ways
async def test_a_client_with_a_key_waits_for_a_cold_instance(
    tmp_path: Path, way: Way, ca: PrivateCa
) -> None:
    async def asks(library: str) -> None:
        kit, headers = WITH_KEY[library](text)
        await proxy.stop()
        pieces = [piece async for piece in kit.stream(url, {**headers, **WAIT})]
        assert len("".join(pieces)) > 3
        assert len(pieces) > 3

        await proxy.stop()
        assert await kit.whole(url, {**headers, **WAIT})

    async with reached(tmp_path, way, ca) as (proxy, url):
        text = key(proxy)
        assert proxy.state == "cold"
        await with_each_library(asks)


@ways
async def test_a_wrong_key_wakes_nothing(
    tmp_path: Path, way: Way, ca: PrivateCa
) -> None:
    async def asks(library: str) -> None:
        kit, headers = WITH_KEY[library](text[:-3] + "AAA")
        with pytest.raises(kit.errors, match="key"):
            await kit.whole(url, {**headers, **WAIT})

        assert proxy.state == "cold"

    async with reached(tmp_path, way, ca) as (proxy, url):
        text = key(proxy)
        await with_each_library(asks)


@ways
async def test_the_log_names_client_and_key_whatever_the_client_claims(
    tmp_path: Path, way: Way, ca: PrivateCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[str, object]] = []
    monkeypatch.setattr(log.REQUESTS, "write", lambda _, keys: written.append(keys))
    async with reached(tmp_path, way, ca) as (proxy, url):
        text = key(proxy)
        # Another address of this machine: the gateway's own is trusted.
        transport = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        headers = {
            "Authorization": f"Bearer {text}",
            "User-Agent": AGENT,
            "X-Forwarded-For": "203.0.113.66",
            "Forwarded": "for=203.0.113.66",
        }
        async with httpx.AsyncClient(transport=transport, headers=headers) as client:
            assert (await client.get(f"{url}/api/tags")).status_code == 200

    (line,) = [one for one in written if one["route"] == "/api/tags"]
    assert (line["client"], line["key"], line["agent"]) == (
        "127.0.0.2",
        "laptop",
        AGENT,
    )
    assert text not in str(line)


@pytest.mark.parametrize("name", ["nginx", "caddy"])
async def test_a_name_of_the_gateways_reaches_a_proxy_on_loopback(
    tmp_path: Path, ca: PrivateCa, name: str
) -> None:
    """The proxy takes names of this machine only, and the gateway sends one."""
    if _is_missing(name):
        pytest.skip(f"there is no {name}")
    hosts = hosts_of_this_machine()
    async with reached(tmp_path, WAYS[name], ca, hosts) as (proxy, url):
        headers = {
            "Authorization": f"Bearer {key(proxy)}",
            "Host": f"{NAME}:{url.rpartition(':')[2]}",
        }
        async with httpx.AsyncClient(headers=headers) as client:
            asked = client.build_request(
                "GET", f"{url}/api/tags", extensions={"sni_hostname": NAME}
            )
            assert (await client.send(asked)).status_code == 200
            headers["Host"] = NAME
            straight = await client.get(f"{proxy.url}/api/tags", headers=headers)
            assert straight.status_code == 403


async def test_requests_trusts_the_authority_it_is_told(
    tmp_path: Path, ca: PrivateCa
) -> None:
    code = "import requests, sys; print(requests.get(sys.argv[1]).status_code)"
    async with reached(tmp_path, WAYS["straight"], ca) as (proxy, url):
        told = []
        for file in (str(ca.authority), ""):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                code,
                f"{url}/healthz",
                env={"REQUESTS_CA_BUNDLE": file, "PATH": os.environ["PATH"]},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            out, _ = await process.communicate()
            told.append(out.strip())
        assert proxy.state == "cold"
    assert told == [b"200", b""]
