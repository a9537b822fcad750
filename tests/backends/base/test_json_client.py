"""The client of a cloud's API over JSON, against one answer on a real socket."""

import pytest
from aiohttp import web

from ollama_proxy.backends.base.json_client import RestClient
from ollama_proxy.base.errors import BackendError, TransientError


def named(status: int, said: str, _body: object) -> BackendError:
    return TransientError(f"{status}: {said}")


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff", b"<html>"])
async def test_what_can_not_be_read_is_an_error_of_the_cloud(
    status: int, body: bytes
) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    app = web.Application()
    app.router.add_get("/things", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = RestClient(f"http://127.0.0.1:{runner.addresses[0][1]}", "token")
    try:
        with pytest.raises(TransientError):
            await client.call("GET", "/things", named)
    finally:
        await client.aclose()
        await runner.cleanup()
