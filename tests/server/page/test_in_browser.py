"""The page in a real browser: on a phone, in the dark, with a keyboard, refreshed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.chromium import PROGRAM, Page, chromium
from tests.fakes.instance import InProcessBackend
from tests.fakes.keys import GOOD, UNKNOWN, put_keys
from tests.proxy import RunningProxy, generate, running_proxy

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium")

PHONE = (360, 740)
LONG = f"registry.example/{'a-long-name-' * 6}/{'a-long-model-' * 6}"
FITS = "document.documentElement.scrollWidth <= window.innerWidth"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
BY_TAB = "document.activeElement.textContent.trim()"
TAB = ("Tab", 9)
POOLS = """
[offers.first]
backend = "local"
price_per_hour = 1.93
currency = "EUR"
[offers.second]
backend = "local"
[pools.large]
models = ["*:70b", "registry.example/*"]
offers = ["first"]
[pools.small]
offers = ["second"]
"""


@contextlib.asynccontextmanager
async def browsing(tmp_path: Path) -> AsyncIterator[tuple[RunningProxy, Page, str]]:
    """Yield a proxy with a launch under way, a ready machine, and a browser."""
    state, file = tmp_path / "state", tmp_path / "pools.toml"
    file.write_text(POOLS)
    with closing(SqliteStore(state)) as store:
        put_keys(store, GOOD)
    booting = InProcessBackend(boot_s=600.0)
    backends = {"first": booting, "second": InProcessBackend()}
    async with (
        running_proxy(state, backends=backends, file=file) as proxy,
        chromium(tmp_path / "browser", "MAP *.lan 127.0.0.1") as page,
    ):
        headers = GOOD.bearer | {"Prefer": "wait=600"}
        chat = f"{proxy.url}/api/generate"
        async with proxy.session.post(chat, json=generate(), headers=headers) as reply:
            await reply.read()
        asking = proxy.session.post(
            chat, json=generate(model=f"{LONG}:70b"), headers=headers
        )
        async with scoped_task(asking, name="asking"):
            large = proxy.parts.pools["large"].pool
            await proxy.until(lambda: large.waiting == 1, within_s=20.0)
            yield proxy, page, f"http://127.0.0.1:{proxy.port}/-/"
        booting.boot_s = 0.0


async def log_in(page: Page, url: str, key: str = GOOD.text) -> None:
    """Write a key into the form, which has the focus, and send it."""
    await page.open(url)
    await page.until("document.activeElement.id === 'key'")
    await page.write(key)
    await page.run("document.querySelector('form').requestSubmit()")
    await page.until("document.querySelector('h2, [role=alert]') !== null")


async def test_a_person_logs_in_reads_the_page_and_logs_out(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (_, page, url):
        await log_in(page, url, UNKNOWN.text)
        wrong = await page.run("document.querySelector('[role=alert]').textContent")
        await log_in(page, url)
        at = await page.run("location.href")
        text = await page.run("document.body.innerText")
        loaded = await page.run("performance.getEntriesByType('resource').length")
        cookies = await page.run("document.cookie")
        await page.run("document.querySelector('form[action=logout]').requestSubmit()")
        await page.until("document.getElementById('key') !== null")

    assert wrong == "this proxy has no such key"
    assert at == url
    assert "Pool large" in text
    assert "Pool small" in text
    assert LONG in text
    assert loaded == 0
    assert cookies == ""


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
async def test_on_a_phone_nothing_is_wider_than_the_screen(
    tmp_path: Path, *, is_dark: bool
) -> None:
    async with browsing(tmp_path) as (_, page, url):
        await page.look_like(*PHONE, is_dark=is_dark)
        await page.open(url)
        assert await page.run(FITS)
        await log_in(page, url)
        assert await page.run(FITS)
        assert await page.run("window.innerWidth") == PHONE[0]
        background = await page.run(BACKGROUND)
        bars = await page.run("document.querySelectorAll('progress').length")

    assert background == ("rgb(15, 18, 22)" if is_dark else "rgb(246, 247, 249)")
    assert bars == 1


async def test_it_refreshes_itself_with_the_session_and_stops_on_demand(
    tmp_path: Path,
) -> None:
    async with browsing(tmp_path) as (proxy, page, url):
        await log_in(page, url)
        await page.run("window.isOld = true")
        await page.until("window.isOld === undefined && document.readyState[0] === 'c'")
        assert "Pool large" in await page.run("document.body.innerText")
        await page.press(*TAB)
        assert await page.run(BY_TAB) == "Stop refreshing"
        assert await page.run(
            "getComputedStyle(document.activeElement).outlineWidth"
        ) == ("3px")
        await page.run("document.activeElement.click()")
        await page.until("location.search === '?still'")
        await page.run("window.isOld = true")
        await asyncio.sleep(6.0)
        assert await page.run("window.isOld")
        assert proxy.parts.pools["small"].pool.in_flight == 0


async def test_what_is_typed_into_the_form_stays(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (_, page, url):
        await page.open(url)
        await page.until("document.activeElement.id === 'key'")
        await page.write("op_half")
        await asyncio.sleep(6.0)
        assert await page.run("document.getElementById('key').value") == "op_half"


async def test_no_script_runs_even_if_one_got_into_the_page(tmp_path: Path) -> None:
    script = json.dumps("<img src=/status onerror='window.isRun = 1'>")
    async with browsing(tmp_path) as (_, page, url):
        await log_in(page, url)
        await page.run(f"document.body.insertAdjacentHTML('beforeend', {script})")
        await asyncio.sleep(0.5)
        assert await page.run("window.isRun") is None


async def test_another_page_can_not_frame_it(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (_, page, url):
        await log_in(page, url)
        await page.open(url.replace("/-/", "/healthz"))  # it has no policy of its own
        frame = """(async () => {
          const frame = document.createElement("iframe");
          frame.src = "/-/";
          document.body.append(frame);
          await new Promise((done) => setTimeout(done, 500));
          try { return frame.contentDocument.body.innerText; } catch { return ""; }
        })()"""
        assert "Pool" not in (await page.run(frame) or "")
