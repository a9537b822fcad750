"""What happens around the handler of a request."""

import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ollama_proxy.server.aiohttp.request import REQUEST_CONTEXT
from tests.proxy import generate, running_proxy


async def test_a_client_that_leaves_at_the_last_write_is_no_error_in_the_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_eof = web.StreamResponse.write_eof

    async def gone(response: web.StreamResponse, data: bytes = b"") -> None:
        request = response._req
        if request is None or REQUEST_CONTEXT not in request:  # the instance's own
            await write_eof(response, data)
            return
        assert request.transport is not None
        request.transport.abort()
        raise aiohttp.ClientConnectionResetError("cannot write to closing transport")

    asked: dict[str, Any] = {"json": generate(), "headers": {"Prefer": "wait=9"}}
    async with running_proxy(tmp_path) as proxy:
        url = f"{proxy.url}/api/generate"
        async with proxy.session.post(url, **asked) as served:
            await served.read()
        monkeypatch.setattr(web.StreamResponse, "write_eof", gone)
        with (
            caplog.at_level(logging.WARNING, logger="aiohttp.server"),
            pytest.raises(aiohttp.ClientError),
        ):
            async with proxy.session.post(url, **asked) as cut:
                await cut.read()
        monkeypatch.undo()

    assert caplog.records == []
