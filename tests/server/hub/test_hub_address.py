"""The hub's own address, where the former hub was: its page, and all else."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest

from ollama_proxy.store.sqlite.store import SqliteStore
from tests.black_box import forked_proxy, run_cli
from tests.certificates import private_ca
from tests.fakes.keys import GOOD, put_keys
from tests.ports import held_port
from tests.proxy import RunningProxy, generate, running_proxy
from tests.server.page.html_reading import Page

BROWSER = {"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Site": "none"}
LOCAL = {"OLLAMA_PROXY_BACKEND": "local"}
FORM = {"Origin": "", "Sec-Fetch-Site": "same-origin"}


@contextlib.asynccontextmanager
async def hub(folder: Path, **more: Any) -> AsyncIterator[RunningProxy]:
    async with running_proxy(folder, OLLAMA_PROXY_HUB="true", **more) as proxy:
        yield proxy


async def get(
    proxy: RunningProxy, url: str, **more: Any
) -> tuple[aiohttp.ClientResponse, str]:
    more.setdefault("headers", BROWSER)
    async with proxy.session.get(url, **more) as answer:
        return answer, await answer.text()


@pytest.mark.parametrize("path", ["/", "/?still", "/-/"])
async def test_a_browser_gets_the_page(tmp_path: Path, path: str) -> None:
    async with hub(tmp_path) as proxy:
        answer, text = await get(proxy, proxy.hub_url + path)

    page = Page(text)
    assert answer.status == 200
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "Pool default" in [one.text for one in page.all("h2")]
    links = [one.attributes["href"] for one in page.all("a")]
    assert all(not link.startswith(("/", "http")) for link in links)
    assert "/-/login" in {urljoin(path, link) for link in links}


async def test_programs_hear_there_that_ollama_is_running(tmp_path: Path) -> None:
    async with hub(tmp_path) as proxy:
        _, told = await get(proxy, proxy.hub_url, headers={"Accept": "*/*"})

    assert told == "Ollama is running"


async def test_elsewhere_a_browser_hears_it_too(tmp_path: Path) -> None:
    async with hub(tmp_path) as proxy:
        _, told = await get(proxy, proxy.url)

    assert told == "Ollama is running"


async def test_all_of_ollama_is_there(tmp_path: Path) -> None:
    body = generate(stream=False)
    async with hub(tmp_path) as proxy:
        await proxy.wake()
        url = f"{proxy.hub_url}/api/generate"
        async with proxy.session.post(url, json=body) as answer:
            told = await answer.json()

    assert told["done"]


async def test_a_job_is_taken_there(tmp_path: Path) -> None:
    async with (
        hub(tmp_path) as proxy,
        proxy.session.post(f"{proxy.hub_url}/jobs", json=generate()) as answer,
    ):
        assert answer.status == 200
        assert b'"done":true' in (await answer.read()).splitlines()[-1]


async def test_where_a_key_is_needed_the_page_at_the_root_is_a_login(
    tmp_path: Path,
) -> None:
    with contextlib.closing(SqliteStore(tmp_path)) as store:
        put_keys(store, GOOD)
    async with hub(tmp_path) as proxy:
        answer, text = await get(proxy, f"{proxy.hub_url}/")
        form = urljoin(f"{proxy.hub_url}/", Page(text).one("form").attributes["action"])
        as_page = {**BROWSER, **FORM, "Origin": proxy.hub_url}
        async with proxy.session.post(
            form, data={"key": GOOD.text}, headers=as_page, allow_redirects=False
        ) as begun:
            cookie = begun.headers["Set-Cookie"].partition(";")[0]
        shown, page = await get(
            proxy, f"{proxy.hub_url}/", headers={**BROWSER, "Cookie": cookie}
        )

    assert (answer.status, begun.status, shown.status) == (401, 303, 200)
    assert begun.headers["Location"] == "./"
    logout = Page(page).one("form").attributes["action"]
    assert urljoin("/", logout) == "/-/logout"


async def test_it_is_on_tls_as_the_other_address_is(tmp_path: Path) -> None:
    ca = private_ca(tmp_path / "ca")
    async with hub(tmp_path, tls=ca) as proxy:
        answer, _ = await get(proxy, proxy.hub_url)

    assert proxy.hub_url.startswith("https://")
    assert answer.status == 200


def test_a_process_listens_there_only_if_it_is_a_hub(tmp_path: Path) -> None:
    port = held_port()
    address = {**LOCAL, "OLLAMA_PROXY_HUB_LISTEN": f"127.0.0.1:{port}"}
    with forked_proxy(tmp_path / "a", OLLAMA_PROXY_HUB="true", **address) as proxy:
        proxy.url = f"http://127.0.0.1:{port}"
        assert proxy.get("/healthz")["status"] == "ok"
        assert "hub.served" in proxy.log.read_text()
    with forked_proxy(tmp_path / "b", **address) as proxy:
        proxy.url = f"http://127.0.0.1:{port}"
        with pytest.raises(OSError, match="refused"):
            proxy.get("/healthz")


def test_a_hub_that_others_reach_says_so(tmp_path: Path) -> None:
    port = held_port()
    with forked_proxy(
        tmp_path / "a",
        **LOCAL,
        OLLAMA_PROXY_HUB="true",
        OLLAMA_PROXY_HUB_LISTEN=f"0.0.0.0:{port}",
    ) as proxy:
        access = proxy.get("/status")["access"]

    assert access["only_this_machine"] is False
    assert f"0.0.0.0:{port}" in access["warning"]
    assert "set OLLAMA_PROXY_HUB_LISTEN to" in access["warning"]


def test_an_address_that_can_not_be_had_is_named(tmp_path: Path) -> None:
    done = run_cli(
        "serve",
        OLLAMA_HOST="127.0.0.1:0",
        OLLAMA_PROXY_BACKEND="local",
        OLLAMA_PROXY_HUB="true",
        OLLAMA_PROXY_HUB_LISTEN="192.0.2.1:8000",
        OLLAMA_PROXY_STATE_DIR=str(tmp_path),
    )

    assert done.returncode == 2
    assert "set OLLAMA_PROXY_HUB_LISTEN to an address of this machine" in done.stderr
