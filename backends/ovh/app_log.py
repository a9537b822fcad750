"""Fetch the end of an app's own log, for the report of one that has failed."""

import asyncio
from collections.abc import Collection
from typing import Final

import msgspec

from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.base.errors import BackendError
from ollama_proxy.fleet.reports import bounded

LINES: Final = 40
"""How many lines of a log are requested and kept."""
LOG_BYTES: Final = 256 * 1024
"""How much of a log is read."""

_TEXTS = ("content", "message", "line", "log")
"""Names that a line of a log may have in JSON."""


async def last_lines(
    driver: Driver, app_id: str, secrets: Collection[str], *, timeout_s: float
) -> str:
    """Return the last lines of an app's log, without secrets, or why there are none."""
    try:
        async with asyncio.timeout(timeout_s):
            said = await driver.log(app_id)
    except (BackendError, TimeoutError) as error:
        why = str(error) or f"no answer within {timeout_s:.0f} s"
        return f"nothing of the app's own log could be fetched: {bounded(why, secrets)}"
    lines = [line for line in read_log(said) if line.strip()][-LINES:]
    if not lines:
        return "the app's own log is empty"
    return bounded("\n".join(lines), secrets)


def read_log(said: str) -> list[str]:
    """Return the lines of a log from API or command.

    Its format is not published: accepts JSON with lines, JSON per line, or text.
    """
    if (whole := _decoded(said)) is not None:
        return whole
    found: list[str] = []
    for raw in said.splitlines():
        line = _decoded(raw)
        found += [raw] if line is None else line
    return found


def _decoded(said: str) -> list[str] | None:
    """Return the lines in JSON of objects or arrays; None for anything else."""
    if said.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        return _lines(msgspec.json.decode(said)) or None
    except (msgspec.MsgspecError, RecursionError):
        return None


def _lines(told: object) -> list[str]:
    match told:
        case str():
            return told.splitlines()
        case list():
            return [line for one in told for line in _lines(one)]
        case dict():
            inner = told.get("logs") or told.get("items")
            if isinstance(inner, list):
                return _lines(inner)
            for name in _TEXTS:
                if isinstance(told.get(name), str):
                    return str(told[name]).splitlines()
    return []
