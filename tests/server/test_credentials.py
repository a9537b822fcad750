"""What an instance gets of the credentials that a client sends, on both servers."""

import asyncio
import base64
from pathlib import Path

import pytest

from ollama_proxy.core.access.keys import Caller
from tests.fakes.keys import GOOD
from tests.fakes.raw_upstream import RawUpstream, reply
from tests.proxy import RunningProxy, relaying_proxy
from tests.wire import send

SESSION = b"ollama_proxy_session=abc"
FIELDS = [
    b"X-First: 1",
    b"Authorization: Bearer theirs",
    b"x-middle: 2",
    b"x-api-key: sk-theirs",
    b"Cookie: a=b;c=d",
    b"X-Last: 3",
]
BY_AIOHTTP = b"Prefer: wait=0"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(2)
    writer.write(reply(b'{"done":true}'))


async def ask(proxy: RunningProxy, *fields: bytes) -> bytes:
    lines = [
        b"POST /api/generate HTTP/1.1",
        b"Host: localhost",
        *fields,
        b"Content-Length: 2",
    ]
    told = await send(proxy.port, b"\r\n".join(lines) + b"\r\n\r\n{}", method="POST")
    return told.status


def arrived(upstream: RawUpstream) -> list[bytes]:
    """Return the header lines of the last request, but those of every one."""
    lines = upstream.heads[-1].split(b"\r\n")[1:-2]
    ours = (b"host:", b"content-length:", b"x-ollama-proxy-via:", b"prefer:")
    return [line for line in lines if not line.lower().startswith(ours)]


ways = pytest.mark.parametrize("way", [[], [BY_AIOHTTP]], ids=["plain", "by aiohttp"])


@ways
async def test_without_keys_foreign_credentials_pass_as_they_came(
    tmp_path: Path, way: list[bytes]
) -> None:
    async with relaying_proxy(tmp_path, answer) as (upstream, proxy):
        assert b"200" in await ask(proxy, *FIELDS, *way)
        assert arrived(upstream) == FIELDS


@ways
@pytest.mark.parametrize(
    "field",
    [
        b"Authorization: Bearer %b" % GOOD.text.encode(),
        b"authorization: bearer  opt_stale",
        b"x-api-key: %b" % GOOD.text.encode(),
        b"Authorization: Basic %b" % base64.b64encode(b"u:" + GOOD.text.encode()),
        b"Cookie: %b" % SESSION,
    ],
)
async def test_what_is_ours_passes_to_no_instance_even_without_keys(
    tmp_path: Path, way: list[bytes], field: bytes
) -> None:
    async with relaying_proxy(tmp_path, answer) as (upstream, proxy):
        assert b"200" in await ask(proxy, b"X-First: 1", field, b"X-Last: 3", *way)
        assert arrived(upstream) == [b"X-First: 1", b"X-Last: 3"]


@ways
async def test_with_keys_no_credential_passes_and_all_else_does(
    tmp_path: Path, way: list[bytes]
) -> None:
    async with relaying_proxy(tmp_path, answer, auth="keys") as (
        upstream,
        proxy,
    ):
        assert b"401" in await ask(proxy, *FIELDS, *way)
        assert upstream.heads == []
        _, made = proxy.parts.gateway.changes.make({"name": "x"}, Caller())
        key = b"Authorization: Bearer %b" % made.encode()
        cookie = b"Cookie: a=\xc3\xbc;%b; c=d" % SESSION
        fields = [b"X-First: 1", key, b"X-Api-Key: sk-theirs", cookie, b"X-Last: 3"]
        assert b"200" in await ask(proxy, *fields, *way)
        kept = b"Cookie: a=\xc3\xbc; c=d"
        assert arrived(upstream) == [b"X-First: 1", kept, b"X-Last: 3"]
