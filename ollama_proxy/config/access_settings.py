"""Declare the settings of access: keys, hosts, TLS."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    SecretStr,
    ValidationInfo,
)

from ollama_proxy.base.fields import Names, setting
from ollama_proxy.base.parsers import (
    Listen,
    parse_metrics_listen,
    parse_networks,
    parse_word,
)
from ollama_proxy.core.access.hosts import is_host_pattern


class AuthMode(StrEnum):
    """Says when a request needs a key.

    ``AUTO``: once a key with a right other than ``admin`` was made, or a file of keys
    is set; ``OFF``: only for orders.
    """

    AUTO = "auto"
    KEYS = "keys"
    OFF = "off"


def _check_key(value: SecretStr | None) -> SecretStr | None:
    """Refuse what fits into no header; a key is pasted, with what stands around it."""
    text = value.get_secret_value().strip() if value is not None else ""
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("it has a space or a character that no key has; paste it anew")
    return SecretStr(text) if text else None


def _check_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for entry in value:
        if not is_host_pattern(entry):
            raise ValueError(
                f"{entry!r} is no name of a host; write ollama.example.com,"
                " *.example.com or *"
            )
    return tuple(entry.lower() for entry in value)


def _check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        if network.endswith("/0"):
            raise ValueError(
                f"{network!r} is every address, so each client could name its own;"
                " write those of your gateways, like 10.0.0.2/32"
            )
    return value


def _check_pair(key: Path | None, info: ValidationInfo) -> Path | None:
    """Refuse a certificate without a key, and a key without a certificate."""
    if "tls_cert" in info.data and (key is None) != (info.data["tls_cert"] is None):
        raise ValueError(
            "a certificate and its key are set together: OLLAMA_PROXY_TLS_CERT and"
            " OLLAMA_PROXY_TLS_KEY name a PEM file each"
        )
    return key


class AccessSettings(BaseModel):
    """Holds the settings on access; `Settings` has them, after its own."""

    auth: Annotated[AuthMode, BeforeValidator(parse_word)] = setting(
        "auto",
        "OLLAMA_PROXY_AUTH",
        text="whether requests need a key: `keys`, `off` or `auto` (once one was made)",
        shown="auto",
    )
    keys_file: Path | None = setting(
        None,
        "OLLAMA_PROXY_KEYS_FILE",
        text="TOML file with keys, in tables `[keys.NAME]`; read again when it changes",
        shown="–",
    )
    allowed_hosts: Annotated[Names, AfterValidator(_check_hosts)] = setting(
        (),
        "OLLAMA_PROXY_ALLOWED_HOSTS",
        text="comma-separated names under which web pages may ask on a public address:"
        " `ollama.example.com`, `*.example.com`; `*` = all",
        shown="–",
    )
    key: Annotated[SecretStr | None, AfterValidator(_check_key)] = setting(
        None,
        "OLLAMA_PROXY_KEY",
        text="the key that commands send to a proxy whose order token they can't read",
        shown="–",
    )
    tls_cert: Path | None = setting(
        None,
        "OLLAMA_PROXY_TLS_CERT",
        text="PEM file of a certificate, with those between it and the root: clients"
        " then speak HTTPS; read again when it is renewed",
        shown="–",
    )
    tls_key: Annotated[Path | None, AfterValidator(_check_pair)] = setting(
        None,
        "OLLAMA_PROXY_TLS_KEY",
        text="PEM file of that certificate's private key, not encrypted",
        shown="–",
    )
    trusted_proxies: Annotated[
        tuple[str, ...],
        BeforeValidator(parse_networks),
        AfterValidator(_check_networks),
    ] = setting(
        (),
        "OLLAMA_PROXY_TRUSTED_PROXIES",
        text="comma-separated addresses or networks of gateways in front, whose"
        " `X-Forwarded-For` names the client: `127.0.0.1`, `10.0.0.0/8`",
        shown="–",
    )
    metrics_listen: Annotated[Listen | None, BeforeValidator(parse_metrics_listen)] = (
        setting(
            None,
            "OLLAMA_PROXY_METRICS_LISTEN",
            text="host:port for `/metrics` and `/healthz` alone, without a key and TLS",
            shown="–",
        )
    )
