"""What libraries log, and what becomes of an exception: no word of a client's."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.library_log import traced

SECRET = "sk-of-a-client"


@pytest.fixture
def told() -> Iterator[io.StringIO]:
    """What is logged while a test runs; the standard library's logging is restored."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    log.configure("debug", stream)
    yield stream
    root.handlers[:], root.level = handlers, level


def lines(told: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told.getvalue().splitlines()]


def fail() -> None:
    raise ValueError(f"can't read {SECRET}")


def test_a_librarys_warning_is_one_line_without_its_arguments(
    told: io.StringIO,
) -> None:
    logging.getLogger("some.library").warning("bad header: %s\nmore", SECRET)

    (line,) = lines(told)
    assert line["event"] == "library.warned"
    assert (line["level"], line["library"]) == ("warning", "some.library")
    assert line["message"] == "bad header: %s"


def test_an_exception_is_told_by_class_and_place(told: io.StringIO) -> None:
    try:
        fail()
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error from %s", SECRET)
        structlog.get_logger().exception(log.REQUEST_FAILED)
    error = ValueError(SECRET)
    structlog.get_logger().error(log.REQUEST_FAILED, exc_info=error)

    assert SECRET not in told.getvalue()
    first, second, third = lines(told)
    assert first["error"] == second["error"] == third["error"] == "ValueError"
    assert first["at"][-1].startswith("test_library_log.py:")
    assert first["at"][-1].endswith(" fail")


async def test_a_task_that_nobody_awaits_is_told_of_in_one_line(
    told: io.StringIO,
) -> None:
    async def lost() -> None:
        fail()

    task = asyncio.get_running_loop().create_task(lost(), name=SECRET)
    await asyncio.wait({task})
    del task

    (line,) = lines(told)
    assert line["message"] == "Task exception was never retrieved"
    assert line["at"][-1].endswith(" fail")
    assert SECRET not in told.getvalue()


def test_our_own_words_and_the_systems_are_told() -> None:
    assert traced(StoreError("the disk is full"))["reason"] == "the disk is full"
    assert traced(OSError(28, "No space left", SECRET))["reason"] == "No space left"
    assert "reason" not in traced(ValueError(SECRET))
    assert traced(None) == {}


def test_the_causes_of_an_exception_are_named() -> None:
    error = RuntimeError(SECRET)
    error.__cause__ = KeyError(SECRET)

    assert traced(error) == {"error": "RuntimeError < KeyError", "at": []}


def test_causes_without_end_are_cut() -> None:
    error = RuntimeError("one")
    error.__cause__ = error

    assert traced(error)["error"].count("RuntimeError") == 5
