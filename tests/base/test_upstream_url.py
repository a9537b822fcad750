"""The upstream's address with a login, which no error shows."""

import base64
import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.base.errors import SettingsError
from ollama_proxy.base.upstream_url import (
    UpstreamUrl,
    parse_upstream_url,
    shown_input,
    without_login,
    without_logins,
)
from ollama_proxy.config.loader import load_settings

SECRET = "s3cr3t-pw"


def basic(text: str) -> tuple[str, str]:
    """Return the bare URL, and what goes out as user and password."""
    url = parse_upstream_url(text)
    assert url.authorization is not None
    word, _, coded = url.authorization.get_secret_value().partition(" ")
    assert word == "Basic"
    return url.url, base64.b64decode(coded).decode()


@pytest.mark.parametrize(
    ("text", "bare", "login"),
    [
        ("http://u:p@h:1", "http://h:1", "u:p"),
        ("https://u:p@h/v1/", "https://h/v1", "u:p"),
        ("HTTP://u@h", "http://h", "u:"),
        ("http://:p@h", "http://h", ":p"),
        ("http://u:p%40%2F%3a%25@h", "http://h", "u:p@/:%"),
        ("http://u:a:b@h", "http://h", "u:a:b"),
        ("http://u:p@w@h", "http://h", "u:p@w"),
        ("http://jos%C3%A9:ü@[::1]:8", "http://[::1]:8", "josé:ü"),
    ],
)
def test_a_login_is_taken_out_and_decoded(text: str, bare: str, login: str) -> None:
    assert basic(text) == (bare, login)


@pytest.mark.parametrize(
    "text", ["http://h", "http://h:11434", "https://[2001:db8::1]:80/a/b", "http://h_1"]
)
def test_a_url_without_login_is_as_it_was(text: str) -> None:
    assert parse_upstream_url(f" {text}/ ") == UpstreamUrl(url=text)


WRONG = [
    f"ftp://u:{SECRET}@h",
    f"u:{SECRET}@h:11434",
    f"//u:{SECRET}@h",
    f"http://u:{SECRET}@",
    f"http://u:{SECRET}@h:99999",
    f"http://u:{SECRET}@h:0",
    f"http://u:{SECRET}@h:port",
    f"http://u:{SECRET}@h h",
    f"http://u:{SECRET}/more@h",
    f"http://u:1/{SECRET}@h",
    f"http://u:{SECRET}#more@h",
    f"http://u:x?{SECRET}@h",
    f"http://u:x y{SECRET}@h",
    f"http://h?key={SECRET}",
    f"http://h/x?key={SECRET}",
    f"http://h#{SECRET}",
    f"http://u%3Au:{SECRET}@h",
    f"http://u:{SECRET}%0d%0a@h",
    f"http://u\\:{SECRET}@h\\x",
    f"https:/u:{SECRET}@h",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_without_its_secret(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"OLLAMA_PROXY_UPSTREAM_URL": text})

    told = str(caught.value)
    assert told.startswith("OLLAMA_PROXY_UPSTREAM_URL: ")
    assert SECRET not in told
    assert "u:" not in told.replace("url:", "")
    assert len(caught.value.faults) == 1


def test_a_password_that_is_not_escaped_is_told_how() -> None:
    with pytest.raises(ValueError, match="in a login write / as %2F"):
        parse_upstream_url("http://u:a/b@h")


def test_an_empty_login_is_refused() -> None:
    with pytest.raises(ValueError, match="has an empty login"):
        parse_upstream_url("http://@h")


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_whatever_stands_there_a_long_password_is_never_told(rest: str) -> None:
    text = f"http://u:{SECRET}{rest}@h"
    told = ""
    with contextlib.suppress(ValueError):
        told += repr(parse_upstream_url(text))
    try:
        load_settings({"OLLAMA_PROXY_UPSTREAM_URL": text})
    except SettingsError as error:
        told += str(error)

    assert SECRET not in told


def test_another_address_with_a_login_is_told_without_it_too() -> None:
    env = {
        "OLLAMA_PROXY_BACKEND": "fly",
        "FLY_API_TOKEN": "x",
        "FLY_APP": "a",
        "FLY_API_URL": f"https://u:{SECRET}@h",
        "FLY_APP_URL": f"https://u:{SECRET}@h",
        "OLLAMA_ORIGINS": f"http://u:{SECRET}@h/x",
    }
    with pytest.raises(SettingsError) as caught:
        load_settings(env)

    assert SECRET not in str(caught.value)


def test_a_secret_of_the_wrong_type_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f'upstream_url = ["{SECRET}"]\n[fly]\napi_token = ["{SECRET}"]\n')
    with pytest.raises(SettingsError) as caught:
        load_settings({"OLLAMA_PROXY_BACKEND": "fly"}, path)

    assert SECRET not in str(caught.value)
    assert "api_token" in str(caught.value)


def test_texts_lose_the_logins_of_their_addresses() -> None:
    told = without_logins(f"https://u:{SECRET}@h and http://{SECRET}@i say no")

    assert SECRET not in told
    assert without_login("http://h:1/x") == "http://h:1/x"


def test_a_table_is_not_told_and_a_number_is() -> None:
    assert shown_input({"token": SECRET}, "no") == ""
    assert shown_input(5, "no") == " (got 5)"
    assert shown_input("x", "'x' is wrong") == ""
