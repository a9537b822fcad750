"""The settings of the hub."""

import pytest

from ollama_proxy.base.errors import SettingsError
from ollama_proxy.config.loader import load_settings


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        (":8000", "", 8000),
        ("0.0.0.0", "0.0.0.0", 8000),
        ("127.0.0.1:8123", "127.0.0.1", 8123),
        ("[::1]", "::1", 8000),
    ],
)
def test_the_port_of_the_former_hub_is_the_default(
    value: str, host: str, port: int
) -> None:
    listen = load_settings({"OLLAMA_PROXY_HUB_LISTEN": value}).hub_listen

    assert listen is not None
    assert (listen.host, listen.port) == (host, port)


@pytest.mark.parametrize("value", ["off", "OFF", " off "])
def test_the_second_address_may_be_turned_off(value: str) -> None:
    assert load_settings({"OLLAMA_PROXY_HUB_LISTEN": value}).hub_listen is None


def test_by_default_there_is_no_hub() -> None:
    settings = load_settings({})

    assert not settings.hub
    assert settings.hub_listen is not None
    assert (settings.hub_listen.host, settings.hub_listen.port) == ("", 8000)


def test_what_is_no_address_is_refused_with_the_name_of_the_setting() -> None:
    with pytest.raises(SettingsError, match="OLLAMA_PROXY_HUB_LISTEN"):
        load_settings({"OLLAMA_PROXY_HUB_LISTEN": "a b:8000"})
