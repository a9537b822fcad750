"""Read what each command begins with: its settings, and which proxy it asks."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ollama_proxy.base import log
from ollama_proxy.base.serving_address import running_proxy
from ollama_proxy.cli.admin_client import ProxyClient, choose_url
from ollama_proxy.cli.console import err, has_colours
from ollama_proxy.cli.own_credential import OwnCredential, is_same_proxy
from ollama_proxy.cli.status_view import escape
from ollama_proxy.cli.trust import trusted_by
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings

environment = os.environ
"""The environment of the process: a command begins here."""

Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file; else ./ollama-proxy.toml if it is there"),
]
Json = Annotated[bool, typer.Option("--json", help="print the answer as JSON")]


def read_settings(config: Path | None, *, serves: bool = False) -> Settings:
    """Return the settings; send further log lines to standard error."""
    settings = load_settings(environment, config)
    log.configure(settings.log_level, has_colours=has_colours(), of_command=not serves)
    return settings


def proxy_client(settings: Settings) -> ProxyClient:
    """Return a client of the proxy that is meant: see `choose_url`."""
    folder, is_given = settings.state_dir, "listen" in settings.model_fields_set
    running = running_proxy(folder)
    url, why = choose_url(
        settings.url,
        running.url if running is not None else None,
        is_given=is_given,
        trusted=trusted_by(settings.url, settings.tls_cert, running),
    )
    if why:
        told = f"{why}; the one of the state folder {str(folder)!r} is asked, at {url}"
        err.print(f"ollama-proxy: {escape(told)}")
    if running is not None and is_same_proxy(url, running.url):
        url, credential = running.url, OwnCredential(folder, settings.key)
    else:
        credential = OwnCredential(key=settings.key)
    trusted = trusted_by(url, settings.tls_cert, running)
    return ProxyClient(url, credential=credential, trusted=trusted)
