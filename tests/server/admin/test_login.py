"""A page logs in with a key, and asks with its session from then on."""

import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from ollama_proxy.core.access.keys import Caller
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.certificates import private_ca
from tests.fakes.instance import InProcessBackend
from tests.fakes.keys import DISABLED, EXPIRED, GOOD, READER, UNKNOWN, put_keys
from tests.proxy import RunningProxy, generate, running_proxy

COOKIE = "ollama_proxy_session"


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[RunningProxy]:
    with closing(SqliteStore(tmp_path)) as store:
        put_keys(store, GOOD, READER, DISABLED, EXPIRED)
    async with running_proxy(tmp_path, backend=InProcessBackend()) as proxy:
        yield proxy


async def ask(
    proxy: RunningProxy,
    method: str,
    path: str,
    session: str = "",
    body: object = None,
    **headers: str,
) -> aiohttp.ClientResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = ({"Cookie": f"{COOKIE}={session}"} if session else {}) | named
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with proxy.session.request(
        method,
        proxy.url + path,
        data=None if body is None else raw,
        headers=sent,
    ) as reply:
        await reply.read()
        return reply


async def login(proxy: RunningProxy, text: str = GOOD.text) -> str:
    reply = await ask(proxy, "POST", "/-/login", body={"key": text})
    assert reply.status == 200
    return reply.cookies[COOKIE].value


async def test_a_key_is_exchanged_for_a_cookie_that_no_script_reads(
    proxy: RunningProxy,
) -> None:
    reply = await ask(proxy, "POST", "/-/login", body={"key": GOOD.text})

    cookie = reply.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert GOOD.text not in cookie
    parts = {part.strip() for part in cookie.split(";")[1:]}
    assert parts == {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"}
    assert await reply.json() == {"name": "good", "expires_in_s": 43200.0}
    assert reply.headers["Cache-Control"] == "no-store"


async def test_a_form_will_do(proxy: RunningProxy) -> None:
    form = f"user=x&key={GOOD.text}".encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await ask(proxy, "POST", "/-/login", body=form, **kind)).status == 200


@pytest.mark.parametrize("text", [UNKNOWN.text, DISABLED.text, EXPIRED.text, "x"])
async def test_a_key_that_is_not_valid_begins_no_session(
    proxy: RunningProxy, text: str
) -> None:
    reply = await ask(proxy, "POST", "/-/login", body={"key": text})
    assert reply.status == 401
    assert "Set-Cookie" not in reply.headers


@pytest.mark.parametrize(
    "body", [None, b"", b"[]", b"{", b'{"key":1}', b'{"key":""}', b"x" * 5000]
)
async def test_what_has_no_key_is_told_how_to_send_one(
    proxy: RunningProxy, body: bytes | None
) -> None:
    reply = await ask(proxy, "POST", "/-/login", body=body)
    assert reply.status == 400
    assert "send {" in (await reply.json())["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:3000"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
async def test_other_pages_neither_log_in_nor_out(
    proxy: RunningProxy, headers: dict[str, str]
) -> None:
    body = {"key": GOOD.text}
    reply = await ask(proxy, "POST", "/-/login", body=body, **headers)
    assert reply.status == 403
    session = await login(proxy)
    assert (await ask(proxy, "POST", "/-/logout", session, **headers)).status == 403
    assert (await ask(proxy, "GET", "/status", session)).status == 200


async def test_a_session_has_the_rights_of_its_key(proxy: RunningProxy) -> None:
    admin, reader = await login(proxy), await login(proxy, READER.text)
    own = {"Origin": proxy.url, "Sec_Fetch_Site": "same-origin"}
    for session, status in ((admin, 200), (reader, 403), ("x", 401)):
        assert (await ask(proxy, "GET", "/-/journal", session)).status == status
        asked = await ask(proxy, "POST", "/-/stop", session, **own)
        assert asked.status == status
    assert (await ask(proxy, "GET", "/status", reader)).status == 200
    told = await ask(proxy, "POST", "/api/chat", reader, generate(), **own)
    assert told.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://localhost:3000", "Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "null"},
    ],
)
async def test_a_page_of_another_origin_changes_nothing_with_it(
    proxy: RunningProxy, headers: dict[str, str]
) -> None:
    session = await login(proxy)
    for path in ("/-/wake", "/api/generate", "/-/stop"):
        reply = await ask(proxy, "POST", path, session, generate(), **headers)
        assert reply.status == 403
    assert proxy.state == "cold"


async def test_a_page_of_another_origin_reads_nothing_with_it(
    proxy: RunningProxy,
) -> None:
    session = await login(proxy)
    for site in ("cross-site", "same-site"):
        reply = await ask(proxy, "GET", "/-/keys", session, Sec_Fetch_Site=site)
        assert reply.status == 403
    # typed into the address bar
    reply = await ask(proxy, "GET", "/-/keys", session, Sec_Fetch_Site="none")
    assert reply.status == 200


async def test_it_ends_with_the_logout(proxy: RunningProxy) -> None:
    session = await login(proxy)
    reply = await ask(proxy, "POST", "/-/logout", session)
    assert "Max-Age=0" in reply.headers["Set-Cookie"]
    assert (await ask(proxy, "GET", "/status", session)).status == 401


@pytest.mark.parametrize("way", ["rm", "disable"])
async def test_it_ends_with_its_key(proxy: RunningProxy, way: str) -> None:
    session = await login(proxy)
    changes = proxy.parts.gateway.changes
    if way == "rm":
        changes.remove("good", Caller())
    else:
        changes.edit("good", {"disabled": True}, Caller())
        changes.edit("good", {"disabled": False}, Caller())
    assert (await ask(proxy, "GET", "/status", session)).status == 401


async def test_on_tls_the_cookie_is_for_tls_alone(tmp_path: Path) -> None:
    ca = private_ca(tmp_path / "tls")
    with closing(SqliteStore(tmp_path / "state")) as store:
        put_keys(store, GOOD)
    async with running_proxy(tmp_path / "state", tls=ca) as proxy:
        reply = await ask(proxy, "POST", "/-/login", body={"key": GOOD.text})
        assert "Secure" in reply.headers["Set-Cookie"].split("; ")
