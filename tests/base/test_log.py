"""The line of a request: there when it is wanted, in the shape of every other."""

import asyncio
import io
import json

import pytest
import structlog

from ollama_proxy.base import log


def line_of(level: str) -> str:
    told = io.StringIO()
    log.configure(level, told)
    log.REQUESTS.write(log.REQUEST_RELAYED, {"status": 200, "route": "/api/chat"})
    return told.getvalue()


def test_the_line_of_a_request_has_the_keys_of_every_line() -> None:
    line = line_of("info")
    keys = json.loads(line)

    assert line.endswith("}\n")
    assert keys.pop("timestamp").endswith("Z")
    assert keys == {
        "event": "request.relayed",
        "level": "info",
        "status": 200,
        "route": "/api/chat",
    }


@pytest.mark.parametrize(("level", "lines"), [("debug", 1), ("warning", 0)])
def test_requests_are_told_at_level_info(level: str, lines: int) -> None:
    assert line_of(level).count("\n") == lines


def test_half_a_character_ends_nothing() -> None:
    told = io.StringIO()
    log.configure("info", told)
    log.REQUESTS.write(log.REQUEST_RELAYED, {"route": "\udc80"})

    assert json.loads(told.getvalue())["route"] == "\udc80"


async def test_lines_are_in_the_order_of_what_happened() -> None:
    told = io.StringIO()
    log.configure("info", told)
    log.REQUESTS.write(log.REQUEST_RELAYED, {"n": 1})
    structlog.get_logger().info(log.PROXY_STOPPING, n=2)
    log.REQUESTS.write(log.REQUEST_RELAYED, {"n": 3})
    assert told.getvalue().count("\n") == 2

    await asyncio.sleep(0)
    assert [json.loads(line)["n"] for line in told.getvalue().splitlines()] == [1, 2, 3]


def test_a_log_that_is_closed_ends_nothing() -> None:
    told = io.StringIO()
    log.configure("info", told)
    told.close()

    log.REQUESTS.write(log.REQUEST_RELAYED, {})
