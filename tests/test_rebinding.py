"""A real browser, a foreign page, and a name that resolves to the proxy."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.black_box import Launch, ProxyProcess, launched_proxy, run_cli
from tests.chromium import PROGRAM, Page, chromium

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium")

EVIL = "evil.example"
PROMPT = "a-prompt-of-somebody"
RULES = f"MAP {EVIL} 127.0.0.1, MAP *.lan 127.0.0.1"

TRY_EVERYTHING = """
(async (base) => {
  const told = {};
  const body = JSON.stringify({model: "llama3.2", prompt: "mine", stream: false});
  const ask = async (name, path, init) => {
    for (const credentials of ["include", "omit"]) {
      try {
        const reply = await fetch(base + path, {credentials, ...init});
        told[name + " " + credentials] = [reply.status, await reply.text()];
      } catch (error) {
        told[name + " " + credentials] = [0, String(error)];
      }
    }
  };
  const post = (extra) => ({method: "POST", body, ...extra});
  const json = {"Content-Type": "application/json"};
  await ask("wake", "/-/wake", post());
  await ask("generate", "/api/generate", post({headers: json}));
  await ask("generate in disguise", "/api/generate", post());
  await ask("unseen", "/api/generate", post({mode: "no-cors"}));
  await ask("chat", "/v1/chat/completions", post());
  await ask("stop", "/-/stop", post());
  await ask("unseen stop", "/-/stop", post({mode: "no-cors"}));
  await ask("keys", "/-/keys");
  await ask("make a key", "/-/keys?yes=1", {method: "POST", body: '{"name": "evil"}'});
  await ask("status", "/status");
  await ask("journal", "/-/journal");
  await ask("usage", "/-/usage");
  await ask("metrics", "/metrics");
  await ask("tags", "/api/tags");
  for (const path of ["/api/generate", "/-/wake", "/-/stop"]) {
    const url = new URL(base + path, location.href).href;
    navigator.sendBeacon(url, body);
    new Image().src = url;
    new EventSource(url);
    new WebSocket(url.replace("http", "ws"));
    for (const more of ["", " allow-same-origin"]) {
      const frame = document.createElement("iframe");  // the first has no origin
      frame.sandbox = "allow-scripts allow-forms" + more;
      frame.srcdoc = `<form method=post enctype=text/plain action="${url}">
        <input name='{"model":"llama3.2","prompt":"' value='mine"}'></form>
        <script>document.forms[0].submit()</script>`;
      document.body.append(frame);
    }
  }
  await new Promise((done) => setTimeout(done, 1000));
  return told;
})
"""


LOG_IN = """
(async (body) => {
  const login = await fetch("/-/login", {method: "POST", body: JSON.stringify(body)});
  return [login.status, (await fetch("/-/keys")).status];
})(%s)
"""


@contextlib.asynccontextmanager
async def foreign_site() -> AsyncIterator[int]:
    """Serve a page of somebody else's; return its port."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="<h1>harmless</h1>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def proxy_at(
    tmp_path: Path, host: str, *, has_keys: bool, **env: str
) -> Iterator[tuple[ProxyProcess, str]]:
    """Run a proxy that has answered a prompt; yield it, and a key if it has any."""
    state = tmp_path / "s"
    launch = Launch(host=host, is_forked=True)
    with launched_proxy(state, launch, env) as proxy:
        proxy.post("/api/generate", {"model": "llama3.2", "prompt": PROMPT})
        proxy.until(lambda: status(proxy)["provisioning_status"] == "ready")
        proxy.post("/-/stop", {})
        proxy.until(lambda: status(proxy)["instance_status"] == "cold")
        key = ""
        if has_keys:
            folder = {"OLLAMA_PROXY_STATE_DIR": str(state)}
            routes = ("--routes", "chat,embed,read,write,admin")
            made = run_cli("key", "add", "owner", "--yes", *routes, **folder)
            key = made.stdout.strip()
            assert key.startswith("op_"), made
        yield proxy, key


def status(proxy: ProxyProcess) -> dict[str, Any]:
    """Ask as the proxy's own commands do, which keys do not hinder."""
    return proxy.get("/status", **proxy.orders())


def launches(proxy: ProxyProcess) -> int:
    lines = proxy.get("/-/journal")["transitions"]
    return sum(line["after"] == "starting" for line in lines)


async def tried(page: Page, url: str, base: str) -> dict[str, Any]:
    """Open a page of somebody else's, and have it try everything at ``base``."""
    await page.open_before_rebinding(url)
    told: dict[str, Any] = await page.run(f"{TRY_EVERYTHING}({json.dumps(base)})")
    return told


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("has_keys", [False, True], ids=["without keys", "with keys"])
async def test_a_page_under_a_foreign_name_does_and_learns_nothing(
    tmp_path: Path, host: str, *, has_keys: bool
) -> None:
    with proxy_at(tmp_path, host, has_keys=has_keys) as (proxy, key):
        port = proxy.url.rpartition(":")[2]
        before = await asyncio.to_thread(launches, proxy)
        async with (
            chromium(tmp_path / "browser", RULES) as page,
            foreign_site() as foreign,
        ):
            own = f"http://127.0.0.1:{port}"
            if has_keys:  # its owner has logged in with this very browser
                await page.open(f"{own}/healthz")
                assert await page.run(LOG_IN % json.dumps({"key": key})) == [200, 200]
            rebound = await tried(page, f"http://{EVIL}:{port}/", "")
            across = await tried(page, f"http://{EVIL}:{foreign}/", own)

        for told in (rebound, across):
            assert {answer[0] for answer in told.values()} <= {0, 403}
            text = json.dumps(told)
            assert PROMPT not in text
            assert "op_" not in text.replace("op_…", "")
        seen = {name: told for name, told in rebound.items() if "unseen" not in name}
        assert {answer[0] for answer in seen.values()} == {403}
        assert await asyncio.to_thread(launches, proxy) == before
        assert (await asyncio.to_thread(status, proxy))["instance_status"] == "cold"
        names = [one["name"] for one in (await asyncio.to_thread(keys, proxy))]
        assert names == (["owner"] if has_keys else [])


def keys(proxy: ProxyProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = proxy.get("/-/keys")["keys"]
    return found


@pytest.mark.parametrize(
    ("name", "env"),
    [("gpu.lan", {}), (EVIL, {"OLLAMA_PROXY_ALLOWED_HOSTS": EVIL})],
    ids=["a name of the own network", "an allowed name"],
)
async def test_a_page_under_a_name_that_is_not_foreign_is_served(
    tmp_path: Path, name: str, env: dict[str, str]
) -> None:
    with proxy_at(tmp_path, "0.0.0.0", has_keys=False, **env) as (proxy, _):
        port = proxy.url.rpartition(":")[2]
        async with chromium(tmp_path / "browser", RULES) as page:
            told = await tried(page, f"http://{name}:{port}/", "")

        assert told["tags omit"][0] == told["status omit"][0] == 200
        assert told["generate omit"][0] == 503
        assert told["wake omit"][0] in {401, 403}
        assert await asyncio.to_thread(launches, proxy) == 2
