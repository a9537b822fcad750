"""An upstream that is the proxy itself is reported before anything is served."""

import asyncio
import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ollama_proxy.base.errors import StartupError
from ollama_proxy.cli.doctor import examine
from ollama_proxy.cli.own_upstream import IpAddress, leads_here, refuse_own_upstream
from ollama_proxy.config.loader import load_settings
from tests.ports import held_port

OWN = {"192.168.7.2", "fe80::1%eth0", "2001:db8::7", "02:42:ac:11:00:02"}


def address(text: str) -> IpAddress:
    return ipaddress.ip_address(text)


@pytest.mark.parametrize(
    ("asked", "listening"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("127.9.9.9", "0.0.0.0"),
        ("192.168.7.2", "0.0.0.0"),
        ("192.168.7.2", "192.168.7.2"),
        ("192.168.7.2", "::"),
        ("127.0.0.1", "::"),
        ("::1", "::"),
        ("::1", "0.0.0.0"),
        ("2001:db8::7", "::"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
    ],
)
def test_an_address_that_leads_here(asked: str, listening: str) -> None:
    assert leads_here(address(asked), address(listening), OWN)


@pytest.mark.parametrize(
    ("asked", "listening"),
    [
        ("127.0.0.2", "127.0.0.1"),
        ("192.168.7.2", "127.0.0.1"),
        ("192.168.7.3", "0.0.0.0"),
        ("10.0.0.9", "::"),
        ("2001:db8::7", "192.168.7.2"),
        ("0.0.0.0", "192.168.7.2"),
    ],
)
def test_an_address_that_does_not(asked: str, listening: str) -> None:
    assert not leads_here(address(asked), address(listening), OWN)


async def look_at(url: str, host: str, folder: Path) -> None:
    env = {"OLLAMA_HOST": host, "OLLAMA_PROXY_UPSTREAM_URL": url}
    settings = load_settings({**env, "OLLAMA_PROXY_STATE_DIR": str(folder)})
    await refuse_own_upstream(settings)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://localhost:11434", "127.0.0.1:11434"),
        ("http://127.0.0.1:11434/", "localhost:11434"),
        ("https://[::ffff:127.0.0.1]:11434/v1", "0.0.0.0:11434"),
        ("http://127.0.0.1", "0.0.0.0:80"),
        ("http://127.0.0.1:11434", ":11434"),
        ("http://[::1]:11434", ":11434"),
    ],
)
async def test_names_and_default_ports_are_seen_through(
    tmp_path: Path, url: str, host: str
) -> None:
    with pytest.raises(StartupError, match="where this proxy itself is to listen"):
        await look_at(url, host, tmp_path)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://localhost:11435", "127.0.0.1:11434"),
        ("http://192.0.2.9:11434", "0.0.0.0:11434"),
        ("http://no-such-host.invalid:11434", "0.0.0.0:11434"),
        ("http://127.0.0.1:11434", "127.0.0.2:11434"),
    ],
)
async def test_another_server_is_none_of_ours(
    tmp_path: Path, url: str, host: str
) -> None:
    await look_at(url, host, tmp_path)


def environment(folder: Path) -> dict[str, str]:
    port = held_port()  # two settings name it, and no server can listen there
    return {
        **os.environ,
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_PROXY_UPSTREAM_URL": f"http://localhost:{port}",
        "OLLAMA_PROXY_STATE_DIR": str(folder),
    }


def test_serve_ends_with_the_sentence_and_both_settings(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ollama_proxy", "serve"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert "where this proxy itself is to listen" in ended.stderr
    assert "OLLAMA_PROXY_UPSTREAM_URL" in ended.stderr
    assert "OLLAMA_HOST" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_check_says_it_too(tmp_path: Path) -> None:
    findings = asyncio.run(examine(load_settings(environment(tmp_path))))
    told = [one.detail for one in findings if one.subject == "upstream" and not one.ok]

    assert "where this proxy itself is to listen" in told[0]
