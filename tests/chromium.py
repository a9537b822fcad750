"""A real browser without a window, driven by its debugging protocol."""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
_BEGIN_S = 60.0


class Page:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            told = await self._socket.receive_json(timeout=_BEGIN_S)
            if told.get("method") == "Fetch.requestPaused":
                await self._stand_in(told["params"]["requestId"])
            if told.get("id") == number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result

    async def _stand_in(self, request: str) -> None:
        """Answer a request in place of its server; its reply is not waited for."""
        page = base64.b64encode(b"<h1>harmless</h1>").decode()
        await self._socket.send_json(
            {
                "id": next(self._numbers),
                "method": "Fetch.fulfillRequest",
                "params": {"requestId": request, "responseCode": 200, "body": page},
            }
        )

    async def open_before_rebinding(self, url: str) -> None:
        """Go to a page that another server had at this address a moment ago."""
        await self._call("Fetch.enable", patterns=[{"urlPattern": url}])
        await self.open(url)
        await self._call("Fetch.disable")

    async def open(self, url: str) -> None:
        """Go to a page."""
        await self._call("Page.navigate", url=url)
        async with asyncio.timeout(_BEGIN_S):
            while await self.run("document.readyState + location.href") != (
                f"complete{url}"
            ):
                await asyncio.sleep(0.05)

    async def look_like(
        self, width: int, height: int, *, is_dark: bool = False
    ) -> None:
        """Have a screen of this size in CSS pixels, light or dark."""
        await self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {
            "name": "prefers-color-scheme",
            "value": "dark" if is_dark else "light",
        }
        await self._call("Emulation.setEmulatedMedia", features=[scheme])

    async def press(self, key: str, code: int) -> None:
        """Press a key; ``code``: Windows' number of it."""
        for kind in ("rawKeyDown", "keyUp"):
            await self._call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code
            )

    async def write(self, text: str) -> None:
        """Write where the focus is."""
        await self._call("Input.insertText", text=text)

    async def until(self, script: str) -> None:
        """Wait until an expression is true, on whatever page is there by then."""
        async with asyncio.timeout(_BEGIN_S):
            while not await self.run(script):
                await asyncio.sleep(0.05)

    async def screenshot(self) -> bytes:
        """Return what is seen, as a PNG file."""
        told = await self._call("Page.captureScreenshot", format="png")
        return base64.b64decode(told["data"])

    async def run(self, script: str) -> Any:
        """Return what an expression or a promise of the page comes to."""
        told = await self._call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")


@contextlib.asynccontextmanager
async def chromium(folder: Path, rules: str) -> AsyncIterator[Page]:
    """Run a browser that resolves names by ``rules``: ``MAP a.example 127.0.0.1``."""
    assert PROGRAM is not None
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        "--headless=new",
        "--no-sandbox",  # the tests may run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-proxy-server",
        # It is the proxy's part to refuse, not this browser's.
        "--disable-features=LocalNetworkAccessChecks,HttpsUpgrades",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        f"--host-resolver-rules={rules}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = await _port(folder)
        async with aiohttp.ClientSession() as session:
            made = f"http://127.0.0.1:{port}/json/new?about:blank"
            async with session.put(made) as reply:
                url = json.loads(await reply.text())["webSocketDebuggerUrl"]
            async with session.ws_connect(url, max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(10.0):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _port(folder: Path) -> int:
    """Return where the browser listens; it writes that once it does."""
    path = folder / "DevToolsActivePort"
    async with asyncio.timeout(_BEGIN_S):
        while True:
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int(path.read_text().splitlines()[0])
            await asyncio.sleep(0.05)
