"""Make a token that a machine joins the hub with: ``node-token``."""

import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from ollama_proxy.base.errors import SettingsError
from ollama_proxy.base.parsers import parse_duration
from ollama_proxy.cli.command_settings import Config, Json
from ollama_proxy.cli.console import err, tell
from ollama_proxy.cli.hub_orders import order_of_hub
from ollama_proxy.cli.status_view import as_line, escape

_MOST_NAMES = 5
_TOKENS = "/-/node-tokens"


def node_token(
    config: Config = None,
    *,
    ttl: Annotated[
        str, typer.Option(metavar="TIME", help="how long it is taken: 10m, 1h, 7d")
    ] = "1h",
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="where that machine reaches this hub"),
    ] = None,
    no_tls: Annotated[
        bool,
        typer.Option(
            "--no-tls",
            help="join over plain HTTP, or through a gateway that has a certificate",
        ),
    ] = False,
    lists: Annotated[
        bool, typer.Option("--list", help="list tokens that were not used yet")
    ] = False,
    revoke: Annotated[
        str | None, typer.Option(metavar="ID", help="take a token no longer")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print one line: pasted on a machine with Ollama, it joins this hub, once.

    The machine gets a key and a certificate of its own.
    """
    if revoke is not None:
        order_of_hub(config, "DELETE", f"{_TOKENS}/{quote(revoke, safe='')}")
        tell(f"revoked {revoke}")
    elif lists:
        _list(order_of_hub(config, "GET", _TOKENS)["tokens"], as_json=as_json)
    else:
        wish = {"ttl_s": _seconds(ttl), "tls": not no_tls}
        made = order_of_hub(config, "POST", _TOKENS, wish)
        if as_json:
            sys.stdout.write(as_line(made) + "\n")
        else:
            _print(made, url or made["url"], ttl=ttl)


def _print(made: dict[str, Any], url: str, *, ttl: str) -> None:
    """Print the line on stdout, and what people must know on stderr."""
    option = "" if url.startswith("https://") else " --no-tls"
    sys.stdout.write(
        f"OLLAMA_PROXY_NODE_TOKEN={made['token']} SERVER_URL={url}"
        f" ollama-proxy node{option}\n"
    )
    err.print(
        escape(
            f"paste it on one machine within {ttl}; it is shown this once. If that"
            " machine reaches this hub at another address, say so with --url"
        )
    )
    if former := made.get("ends_with_joining"):
        names = ", ".join(former[:_MOST_NAMES])
        more = f" and {len(former) - _MOST_NAMES} more" * (len(former) > _MOST_NAMES)
        err.print(
            escape(
                f"when it joins, {names}{more} get no requests any more, as they have"
                " no key; to keep them, start the hub with OLLAMA_PROXY_HUB_LEGACY=on"
            )
        )


def _list(tokens: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(as_line({"tokens": tokens}) + "\n")
    elif not tokens:
        tell("no token waits for a machine")
    for token in tokens if not as_json else ():
        tell(f"{token['id']}  ends in {token['expires_in_s']:.0f} s")


def _seconds(ttl: str) -> float:
    try:
        return float(parse_duration(ttl))
    except ValueError as error:
        raise SettingsError([f"--ttl: {error}"]) from None
