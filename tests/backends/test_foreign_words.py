"""Why a call has no answer, in words that a person can use."""

import errno
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from ollama_proxy.backends.foreign_words import why_unanswered
from ollama_proxy.fleet.instance_client import broken_off


def refused_to_connect(number: int) -> aiohttp.ClientConnectorError:
    """Return what aiohttp raises for a link with a context of TLS of its own."""
    context = ssl.create_default_context()
    key = ConnectionKey("198.51.100.7", 443, True, context, None, None, None)
    return aiohttp.ClientConnectorError(key, OSError(number, "No way"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (refused_to_connect(errno.ECONNREFUSED), "it refuses connections"),
        (refused_to_connect(errno.EHOSTUNREACH), "no route of this machine's network"),
        (refused_to_connect(errno.ENETUNREACH), "no route of this machine's network"),
        (TimeoutError(), "it does not answer in time"),
        (aiohttp.ServerDisconnectedError(), "the connection ended before the whole"),
    ],
)
def test_why_a_call_has_no_answer_is_said_in_words(error: Exception, says: str) -> None:
    assert why_unanswered(error).startswith(says)


def test_a_broken_pull_shows_no_object_of_the_program() -> None:
    fault = broken_off("pulling", "llama3.2", refused_to_connect(errno.ECONNRESET))

    assert " object at 0x" not in fault.message
    assert "broke off while pulling 'llama3.2': [Errno 104] No way" in fault.message
