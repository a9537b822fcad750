"""The hub's address takes TLS by the hub's certificate, and what former agents send."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest

from ollama_proxy.core.nodes.tls_names import HUB_NAME
from ollama_proxy.upstream.hub_trust import trusting
from tests.certificates import private_ca
from tests.proxy import RunningProxy, running_proxy


async def status(url: str, trust: ssl.SSLContext | bool) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/healthz", ssl=trust) as answer,
    ):
        return answer.status


def hub_trust(proxy: RunningProxy) -> ssl.SSLContext:
    assert proxy.parts.hub is not None
    return trusting(proxy.parts.hub.authority.certificate, HUB_NAME)


async def test_the_hubs_port_takes_tls_and_plain_http(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_HUB="true") as proxy:
        assert proxy.hub_url.startswith("http://")
        assert await status(proxy.hub_url, True) == 200
        on_tls = proxy.hub_url.replace("http", "https")
        assert await status(on_tls, hub_trust(proxy)) == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await status(on_tls, True)


async def test_with_an_owners_certificate_each_gets_the_one_it_asks_for(
    tmp_path: Path,
) -> None:
    ca = private_ca(tmp_path / "tls")
    async with running_proxy(tmp_path, tls=ca, OLLAMA_PROXY_HUB="true") as proxy:
        for url in (proxy.hub_url, proxy.url):
            assert await status(url, ca.trusting()) == 200
            assert await status(url, hub_trust(proxy)) == 200
            assert await status(url, ca.trusting()) == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await status(url, trusting(ca_of(proxy)))
        assert await status(proxy.hub_url.replace("https", "http"), True) == 400


def ca_of(proxy: RunningProxy) -> str:
    assert proxy.parts.hub is not None
    return proxy.parts.hub.authority.certificate


async def test_without_a_hub_the_proxys_port_knows_no_such_name(
    tmp_path: Path,
) -> None:
    ca = private_ca(tmp_path / "tls")
    async with running_proxy(tmp_path, tls=ca) as proxy:
        assert proxy.hub_url == ""
        assert await status(proxy.url, ca.trusting()) == 200
        assert not (tmp_path / "hub").exists()


async def test_a_client_that_sends_nothing_is_let_go(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_HUB="true") as proxy:
        port = int(proxy.hub_url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await status(proxy.hub_url, True) == 200
        writer.close()
