"""The page on real sockets: who sees it, how one logs in, and what it leaves alone."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.certificates import private_ca
from tests.fakes.instance import InProcessBackend
from tests.fakes.keys import DISABLED, GOOD, READER, UNKNOWN, WRITER, put_keys
from tests.proxy import HAS_FAST_PATH, RunningProxy, generate, running_proxy
from tests.server.page.html_reading import Page

BROWSER = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Language": "de",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-Mode": "navigate",
    "User-Agent": "Mozilla/5.0",
}
COOKIE = "ollama_proxy_session"


@pytest.fixture(params=[True, False], ids=["fast path", "no fast path"])
async def proxy(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[RunningProxy]:
    if request.param and not HAS_FAST_PATH:
        pytest.skip("OLLAMA_PROXY_FAST_PATH turns it off")
    with closing(SqliteStore(tmp_path)) as store:
        put_keys(store, GOOD, READER, WRITER, DISABLED)
    async with running_proxy(
        tmp_path,
        backend=InProcessBackend(),
        OLLAMA_PROXY_FAST_PATH=str(request.param).lower(),
    ) as running:
        yield running


async def ask(
    proxy: RunningProxy,
    path: str = "/-/",
    method: str = "GET",
    session: str = "",
    *,
    form: dict[str, str] | None = None,
    **headers: str,
) -> aiohttp.ClientResponse:
    """Send a request as a browser does, and follow nothing."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    cookie = {"Cookie": f"theme=dark; {COOKIE}={session}"} if session else {}
    of_form = {"Origin": proxy.url, "Sec-Fetch-Site": "same-origin"}
    sent = BROWSER | (of_form if method == "POST" else {}) | cookie | named
    url = proxy.url + path
    async with proxy.session.request(
        method, url, data=form, headers=sent, allow_redirects=False
    ) as reply:
        await reply.read()
        return reply


async def log_in(proxy: RunningProxy, text: str) -> str:
    reply = await ask(proxy, "/-/login", "POST", form={"key": text})
    assert (reply.status, reply.headers["Location"]) == (303, "./")
    return reply.cookies[COOKIE].value


async def read(reply: aiohttp.ClientResponse) -> Page:
    """Read a page, and look at the headers that each has to have."""
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-store"
    return Page(await reply.text())


@pytest.mark.parametrize("path", ["/-/", "/-/login"])
async def test_without_a_session_the_page_is_a_form_that_takes_a_key(
    proxy: RunningProxy, path: str
) -> None:
    reply = await ask(proxy, path)
    page = await read(reply)

    assert reply.status == 401
    assert page.one("form").attributes == {
        "method": "post",
        "action": "../-/login",
    }
    assert page.one("input").attributes["name"] == "key"
    assert not page.all("p", role="alert")
    assert "default/0" not in page.text


async def test_a_key_opens_the_page_and_a_logout_closes_it(proxy: RunningProxy) -> None:
    session = await log_in(proxy, f" {READER.text}\n")
    page = await read(await ask(proxy, session=session))
    out = await ask(proxy, "/-/logout", "POST", session, form={})

    assert "Pool default" in page.text
    assert "Key reader" in page.text
    assert page.one("form").attributes["action"] == "logout"
    assert (out.status, out.headers["Location"]) == (303, "./")
    assert "Max-Age=0" in out.headers["Set-Cookie"]
    over = await ask(proxy, session=session)
    assert over.status == 401
    assert "this session is over" in (await read(over)).one("p", role="alert").text


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (UNKNOWN.text, 401, "this proxy has no such key"),
        (DISABLED.text, 401, "the key 'disabled' is disabled; use another key"),
        ("", 400, "there is no key"),
        ("<b>", 401, "this proxy has no such key"),
    ],
)
async def test_a_wrong_key_is_told_on_the_page(
    proxy: RunningProxy, text: str, status: int, words: str
) -> None:
    reply = await ask(proxy, "/-/login", "POST", form={"key": text})
    page = await read(reply)

    assert reply.status == status
    assert words in page.one("p", role="alert").text
    assert "Set-Cookie" not in reply.headers
    assert text not in page.one("body").text or not text


async def test_a_key_without_the_right_to_read_is_told_so(proxy: RunningProxy) -> None:
    session = await log_in(proxy, WRITER.text)
    reply = await ask(proxy, session=session)
    page = await read(reply)

    assert reply.status == 403
    assert "'read'" in page.one("p", role="alert").text
    assert [one.attributes["action"] for one in page.all("form")] == [
        "../-/login",
        "../-/logout",
    ]


async def test_a_link_from_a_page_of_the_same_site_asks_to_open_it(
    proxy: RunningProxy,
) -> None:
    session = await log_in(proxy, READER.text)
    reply = await ask(proxy, session=session, Sec_Fetch_Site="same-site")
    page = await read(reply)

    assert reply.status == 403
    assert "another page has led here" in page.one("p", role="alert").text
    assert page.one("a").attributes["href"] == "./"


async def test_programs_get_the_refusal_that_they_can_read(proxy: RunningProxy) -> None:
    reply = await ask(proxy, Accept="*/*")
    assert reply.status == 401
    assert "needs a key" in (await reply.json())["error"]
    by_key = await ask(
        proxy, Accept="*/*", Authorization=READER.bearer["Authorization"]
    )
    assert "Pool default" in (await read(by_key)).text


async def test_only_administrators_see_who_asks(proxy: RunningProxy) -> None:
    reader, admin = await log_in(proxy, READER.text), await log_in(proxy, GOOD.text)
    backend = proxy.parts.pool.controllers[0].offer.backend
    assert isinstance(backend, InProcessBackend)
    backend.boot_s = 600.0
    headers = GOOD.bearer | {"Prefer": "wait=600", "User-Agent": "<i>shell</i>"}
    asking = proxy.session.post(
        f"{proxy.url}/api/generate", json=generate(), headers=headers
    )
    async with scoped_task(asking, name="asking"):
        await proxy.until(lambda: proxy.parts.pool.waiting == 1)
        seen = await read(await ask(proxy, session=admin))
        hidden = await read(await ask(proxy, session=reader))
        backend.boot_s = 0.0

    (sender,) = [one.text for one in seen.all("th") if "good at" in one.text]
    assert sender == "good at 127.0.0.1<i>shell</i>"
    assert "shell" not in hidden.text
    assert "Who asks now" not in hidden.text
    assert seen.one("progress").attributes["aria-label"] == "launch of default/0/local"


async def test_a_look_wakes_nothing_and_counts_as_nothing(proxy: RunningProxy) -> None:
    session = await log_in(proxy, READER.text)
    metric = f"{proxy.url}/metrics"
    for _ in range(3):
        assert (await ask(proxy, session=session)).status == 200
        assert (await ask(proxy, "/-/?still", "HEAD", session)).status == 200
    assert proxy.state == "cold"
    await proxy.wake()
    before = proxy.parts.pool.controllers[0].record
    assert (await ask(proxy, session=session)).status == 200
    await asyncio.sleep(0.05)

    assert proxy.parts.pool.controllers[0].record == before
    assert proxy.parts.pool.in_flight == proxy.parts.pool.waiting == 0
    async with proxy.session.get(metric, headers=READER.bearer) as reply:
        told = await reply.text()
    counted = re.findall(r'requests_total\{.*kind="admin".*\} (\S+)', told)
    assert sum(map(float, counted)) == 1.0  # the login


@pytest.mark.parametrize("host", ["evil.example", "evil.example:11434"])
async def test_under_a_foreign_name_there_is_no_page_and_no_form(
    proxy: RunningProxy, tmp_path: Path, host: str
) -> None:
    for path, method in (("/-/", "GET"), ("/-/login", "GET"), ("/-/login", "POST")):
        reply = await ask(proxy, path, method, Host=host, Origin=f"http://{host}")
        assert reply.status == 403
        assert "form" not in await reply.text()


async def test_a_form_of_another_page_logs_nobody_in(proxy: RunningProxy) -> None:
    form = {"key": READER.text}
    for origin in ("http://localhost:3000", "null"):
        reply = await ask(proxy, "/-/login", "POST", form=form, Origin=origin)
        assert reply.status == 403
        assert "Set-Cookie" not in reply.headers


async def test_a_proxy_that_needs_no_key_shows_the_page_and_offers_to_log_in(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path, backend=InProcessBackend()) as proxy:
        page = await read(await ask(proxy))
        form = await ask(proxy, "/-/login")

    assert "no key is needed" in page.text
    assert page.one("a", href="login")
    assert form.status == 200
    assert (await read(form)).one("input", id="key")


async def test_it_is_there_on_tls_and_its_cookie_stays_there(tmp_path: Path) -> None:
    ca = private_ca(tmp_path / "tls")
    with closing(SqliteStore(tmp_path / "state")) as store:
        put_keys(store, READER)
    async with running_proxy(tmp_path / "state", tls=ca) as proxy:
        form = {"key": READER.text}
        reply = await ask(proxy, "/-/login", "POST", form=form)
        session = reply.cookies[COOKIE].value
        page = await read(await ask(proxy, session=session))

    assert "Secure" in reply.headers["Set-Cookie"].split("; ")
    assert "Pool default" in page.text


async def test_one_connection_takes_the_page_and_then_a_chat(
    proxy: RunningProxy,
) -> None:
    await proxy.wake()
    rest = f" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {GOOD.text}\r\n"
    page = f"GET /-/{rest}\r\n".encode()
    version = f"GET /api/version{rest}Connection: close\r\n\r\n".encode()
    came = await proxy.raw(page + version)

    assert came.count(b"HTTP/1.1 200 OK") == 2
    assert b"Pool default" in came
    assert b'{"version":' in came
