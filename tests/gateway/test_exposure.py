"""What a person is told about a proxy that needs no key."""

import pytest

from ollama_proxy.gateway.exposure import Exposure


@pytest.mark.parametrize("is_local", [True, False])
def test_a_key_is_advised_unless_none_would_be_needed(is_local: bool) -> None:
    advised = Exposure("h:1", is_local, lambda: False).warning()
    off = Exposure("h:1", is_local, lambda: False, is_off=True).warning()

    assert advised is not None
    assert "ollama-proxy key add NAME" in advised
    assert off is not None
    assert "set OLLAMA_PROXY_AUTH to auto" in off
    assert "key add" not in off


def test_nothing_is_told_once_requests_need_a_key() -> None:
    assert Exposure("h:1", False, lambda: True).warning() is None
