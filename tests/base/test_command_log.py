"""The log of a command: sentences for a person."""

import io

import pytest
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.command_log import as_sentence


def test_an_event_is_told_in_a_sentence_with_its_reason() -> None:
    told = io.StringIO()
    log.configure("info", told, of_command=True)
    structlog.get_logger().info(log.PROXY_STARTED)
    structlog.get_logger().warning(log.SWEEP_FAILED, region="GRA", error="\x1b[1mno")

    assert told.getvalue() == "ollama-proxy: sweep failed (region GRA): \\x1b[1mno\n"


def test_what_a_library_says_is_left_out() -> None:
    with pytest.raises(structlog.DropEvent):
        as_sentence(None, "warning", {"event": log.LIBRARY_WARNED})
