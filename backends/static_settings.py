"""Declare the settings of ``static``: they stand beside the proxy's, in no table."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, SecretStr

from ollama_proxy.backends.static_access import (
    URL,
    access_faults,
    access_warnings,
    parse_headers,
    parse_token,
)
from ollama_proxy.base.fields import BackendSettings, setting
from ollama_proxy.base.upstream_url import UpstreamUrl, parse_upstream_url
from ollama_proxy.fleet.backend_plugin import Choice

_NAME = "static"


class StaticSettings(BackendSettings):
    """Holds the server's URL, and the credentials for it."""

    bound = {  # noqa: RUF012 - a class variable, as its base declares it
        "upstream_url": (
            "upstream_is_gateway",
            "upstream_token",
            "upstream_headers",
            "upstream_ca",
            "upstream_insecure",
        )
    }

    upstream_url: Annotated[UpstreamUrl, BeforeValidator(parse_upstream_url)] | None = (
        setting(
            None,
            "OLLAMA_PROXY_UPSTREAM_URL",
            text="the Ollama server that `static` points at; it may have a login:"
            " `http://user:password@host:11434`",
            shown="–",
            is_secret=True,
        )
    )
    upstream_is_gateway: bool = setting(
        "false",
        "OLLAMA_PROXY_UPSTREAM_IS_GATEWAY",
        text="there is a gateway before that server: a clean early end is a loss",
        shown="false",
    )
    upstream_token: Annotated[SecretStr, BeforeValidator(parse_token)] | None = setting(
        None,
        "OLLAMA_PROXY_UPSTREAM_TOKEN",
        text="a token that server wants as `Authorization: Bearer`; clients' own is"
        " replaced",
        shown="–",
    )
    upstream_headers: Annotated[
        dict[str, SecretStr], BeforeValidator(parse_headers)
    ] = setting(
        dict,
        "OLLAMA_PROXY_UPSTREAM_HEADERS",
        text="headers that server wants, one `Name: value` a line, or a JSON object",
        shown="–",
    )
    upstream_ca: Path | None = setting(
        None,
        "OLLAMA_PROXY_UPSTREAM_CA",
        text="a PEM file with the certificates that are trusted there, and no others",
        shown="the system's, or `SSL_CERT_FILE`",
    )
    upstream_insecure: bool = setting(
        "false",
        "OLLAMA_PROXY_UPSTREAM_INSECURE",
        text="accept any certificate there: anybody on the way can listen",
        shown="false",
    )

    def warnings(self) -> list[str]:
        """Return a sentence for each unsafe property of the way to the server."""
        return access_warnings(self)


def static_faults(settings: StaticSettings, choice: Choice) -> list[str]:
    """Return the faults, even if another backend is selected and ignores these."""
    faults = []
    if choice.backend == _NAME and settings.upstream_url is None:
        faults.append(
            f"{URL}: the backend 'static' needs the URL of a server;"
            " write http://host:11434"
        )
    if choice.named not in {"", _NAME} and settings.upstream_url is not None:
        faults.append(
            f"{URL}: the backend {choice.named!r} takes no URL;"
            " remove it, or set OLLAMA_PROXY_BACKEND=static"
        )
    if choice.backend != _NAME and settings.upstream_is_gateway:
        faults.append(
            "OLLAMA_PROXY_UPSTREAM_IS_GATEWAY: only the backend 'static' takes it, not"
            f" for {choice.backend!r}; remove it"
        )
    return faults + access_faults(settings, choice.backend)
