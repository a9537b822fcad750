"""Whether another server relays a request."""

import pytest

from ollama_proxy.core.access.forwarding import are_forwarded


@pytest.mark.parametrize(
    "name", ["Forwarded", "VIA", "x-real-ip", "X-Forwarded-For", "x-forwarded-"]
)
def test_a_header_of_a_relaying_server_tells_it(name: str) -> None:
    assert are_forwarded(["Host", name])


@pytest.mark.parametrize("name", ["Host", "Forwarded-For", "X-Real", "Viaduct", ""])
def test_other_headers_do_not(name: str) -> None:
    assert not are_forwarded([name])
    assert not are_forwarded([])
