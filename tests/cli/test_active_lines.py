"""The requests in progress on a terminal."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from ollama_proxy.cli.active_lines import MOST, active_lines
from ollama_proxy.cli.status_view import render_status
from tests.proxy import running_proxy

ONE: dict[str, Any] = {
    "request_id": "req_1",
    "client": "203.0.113.7",
    "key": "laptop",
    "agent": "curl/8.5",
    "route": "/api/chat",
    "model": "llama3.2",
    "pool": "default",
    "since_s": 12.3,
    "state": "relaying",
}


def test_a_request_is_one_line() -> None:
    line = "203.0.113.7 (laptop): /api/chat llama3.2, relaying for 12 s, curl/8.5"
    assert list(active_lines([ONE])) == [line]
    bare = ONE | {"client": "", "key": None, "agent": "", "model": None}
    assert list(active_lines([bare])) == ["unknown: /api/chat, relaying for 12 s"]


def test_many_are_summed_up() -> None:
    lines = list(active_lines([ONE] * (MOST + 3)))
    assert len(lines) == MOST + 1
    assert lines[-1] == "and 3 more"


async def test_a_terminal_obeys_nothing_of_it(tmp_path: Path) -> None:
    evil = ONE | {"agent": "\x1b]0;owned\x07[red]x", "model": "\x9b31m\u202e"}
    async with running_proxy(tmp_path) as proxy:
        status = await proxy.status() | {"active": [evil]}
    out = io.StringIO()
    Console(file=out, width=200).print(render_status(status, "http://p"))

    shown = out.getvalue()
    assert "asks now" in shown
    assert not set("\x1b\x07\x9b\u202e") & set(shown)


async def test_what_is_wrong_with_the_certificate_is_shown(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        told = {"expires_at": "2026-01-01T00:00:00Z", "problem": "the key is gone"}
        status = await proxy.status() | {"tls": told}
    out = io.StringIO()
    Console(file=out, width=200).print(render_status(status, "https://p"))

    assert "the key is gone" in out.getvalue()
