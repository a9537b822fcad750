"""Make, list, change and remove keys through the running proxy: ``key``."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeAlias
from urllib.parse import quote

import typer

from ollama_proxy.base.errors import SettingsError, StartupError
from ollama_proxy.cli.admin_client import ProxyAnswerError, ProxyClient
from ollama_proxy.cli.command_settings import Config, Json, proxy_client, read_settings
from ollama_proxy.cli.console import confirm, err, out, tell
from ollama_proxy.cli.key_view import (
    consent_question,
    key_table,
    key_words,
    keys_lines,
)
from ollama_proxy.cli.status_view import as_line, escape

_KEYS = "/-/keys"
_BAD_REQUEST, _CONFLICT = 400, 409
_MOST_PAGES = 1000
_HOW = (
    "shown this once; clients send it as the header `Authorization: Bearer …`, Ollama's"
    " Python library from OLLAMA_API_KEY"
)
_NOT_NEEDED = (
    "requests need no key so far: OLLAMA_PROXY_AUTH is off, or all keys have the"
    " right 'admin' alone"
)

keys = typer.Typer(
    no_args_is_help=True, help="Make, list, change and remove keys of clients."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the key, or its id")]
Models = Annotated[
    str | None,
    typer.Option(metavar="GLOBS", help="models it may use: llama3*,qwen3:*; or all"),
]
Routes = Annotated[
    str | None,
    typer.Option(
        metavar="RIGHTS", help="some of chat,embed,read,write,jobs,admin, with commas"
    ),
]
Rpm = Annotated[str | None, typer.Option(metavar="N", help="requests a minute")]
Parallel = Annotated[str | None, typer.Option(metavar="N", help="requests at once")]
Tokens = Annotated[
    str | None,
    typer.Option(metavar="N", help="tokens of prompts and answers in a day (UTC)"),
]
Budget = Annotated[
    list[str] | None,
    typer.Option(metavar="AMOUNT/day|month", help="money: 5/day; may stand twice"),
]
Wake = Annotated[
    bool | None,
    typer.Option(
        "--wake/--no-wake", help="whether its requests start and keep instances"
    ),
]
MaxHold = Annotated[
    str | None, typer.Option(metavar="TIME", help="longest wait for an instance: 5m")
]
Priority = Annotated[
    str | None, typer.Option(metavar="N", help="of waiting requests the higher is next")
]
Expires = Annotated[
    str | None, typer.Option(metavar="WHEN", help="30d, 2027-01-31 or never")
]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask")]

Words: TypeAlias = dict[str, object]
Ask: TypeAlias = Callable[[str, str, Words], dict[str, Any]]
"""Has an order carried out: by method, path and words."""


def _with_terms(run: Callable[[Ask, str, Words], None]) -> Callable[..., None]:
    """Return ``run`` as a command with an option for each word of a key's terms.

    It gets what asks the proxy, the key's name, and the words that were given.
    """

    def command(
        name: Annotated[
            str,
            typer.Argument(
                metavar="NAME", help="name of the key; `edit` takes its id, too"
            ),
        ],
        config: Config = None,
        *,
        models: Models = None,
        routes: Routes = None,
        rpm: Rpm = None,
        parallel: Parallel = None,
        tokens_per_day: Tokens = None,
        budget: Budget = None,
        wake: Wake = None,
        max_hold: MaxHold = None,
        priority: Priority = None,
        expires: Expires = None,
        yes: Yes = False,
    ) -> None:
        words: Words = {
            "models": models,
            "routes": routes,
            "rpm": rpm,
            "parallel": parallel,
            "tokens_per_day": tokens_per_day,
            "budget": budget,
            "no_wake": None if wake is None else not wake,
            "max_hold": max_hold,
            "priority": priority,
            "expires": expires,
        }
        given = {word: value for word, value in words.items() if value is not None}
        run(partial(_ask, proxy_client(read_settings(config)), yes=yes), name, given)

    command.__name__, command.__doc__ = run.__name__, run.__doc__
    return command


@keys.command()
@_with_terms
def add(ask: Ask, name: str, words: Words) -> None:
    """Make a key; without options for chat, embed and read, and all models."""
    _print_text(ask("POST", _KEYS, {"name": name, **words}))


@keys.command()
@_with_terms
def edit(ask: Ask, name: str, words: Words) -> None:
    """Change what is named; `none` takes a limit away, `never` the end."""
    tell(key_words(ask("PATCH", _path(name), words)))


@keys.command("list")
def list_keys(config: Config = None, *, as_json: Json = False) -> None:
    """List all keys, without their texts, which are nowhere."""
    found = _every_key(proxy_client(read_settings(config)))
    if as_json:
        sys.stdout.write(as_line({"keys": found}) + "\n")
    elif found:
        for line in keys_lines(found):
            tell(line)
    else:
        tell("there are no keys; `key add NAME` makes one")


@keys.command()
def show(name: Name, config: Config = None, *, as_json: Json = False) -> None:
    """Show a key: its rights, its limits, and until when it is taken."""
    key = proxy_client(read_settings(config)).get(_path(name))
    if as_json:
        sys.stdout.write(as_line(key) + "\n")
    else:
        out.print(key_table(key))


@keys.command()
def disable(name: Name, config: Config = None) -> None:
    """Refuse a key until it is enabled, and end what goes on with it."""
    client = proxy_client(read_settings(config))
    tell(f"disabled {key_words(_ask(client, 'PATCH', _path(name), _DISABLED))}")


@keys.command()
def enable(name: Name, config: Config = None) -> None:
    """Take a key again that was disabled."""
    client = proxy_client(read_settings(config))
    tell(f"enabled {key_words(_ask(client, 'PATCH', _path(name), _ENABLED))}")


@keys.command()
def rotate(
    name: Name,
    config: Config = None,
    *,
    grace: Annotated[
        str,
        typer.Option(metavar="TIME", help="how long the old text is taken as well"),
    ] = "24h",
) -> None:
    """Give a key a new text; the old one is taken for a grace time, 0 for none."""
    client = proxy_client(read_settings(config))
    told = _ask(client, "POST", f"{_path(name)}/rotate", {"grace": grace})
    _print_text(told)
    if (until := told["former_until"]) is not None:
        err.print(escape(f"the old text is taken until {until}"))


@keys.command("rm")
def remove(name: Name, config: Config = None) -> None:
    """Remove a key, and end what goes on with it."""
    client = proxy_client(read_settings(config))
    removed = _ask(client, "DELETE", _path(name))["removed"]
    tell(f"removed {key_words(removed)}")


_DISABLED: dict[str, Any] = {"disabled": True}
_ENABLED: dict[str, Any] = {"disabled": False}


def _every_key(client: ProxyClient) -> list[dict[str, Any]]:
    found, after = [], None
    for _ in range(_MOST_PAGES):
        page = client.get(_KEYS, after=after)
        found += page["keys"]
        after = page["next"]
        if after is None:
            break
    return found


def _path(name: str) -> str:
    if not name:
        raise StartupError("'' names no key; see `key list`")
    return f"{_KEYS}/{quote(name, safe='')}"


def _ask(
    client: ProxyClient,
    method: str,
    path: str,
    words: Words | None = None,
    *,
    yes: bool = False,
) -> dict[str, Any]:
    """Have an order carried out; ask the person where the proxy wants that.

    Raises `SettingsError` with a sentence for each word that is wrong.
    """
    try:
        return client.send(method, path, words, yes="1" if yes else None)
    except ProxyAnswerError as error:
        if error.status == _BAD_REQUEST and "faults" in error.body:
            faults = [_as_option(str(fault)) for fault in error.body["faults"]]
            raise SettingsError(faults) from error
        if error.status != _CONFLICT or "clients" not in error.body:
            raise
        question = consent_question(error.body["clients"], error.body["watched_s"])
    confirm(question, yes=False)
    return client.send(method, path, words, yes="1")


def _as_option(fault: str) -> str:
    """Write the word that a fault begins with as the option that it is here."""
    word, colon, rest = fault.partition(": ")
    if not colon or word in {"name", "disabled"} or not word.replace("_", "").isalpha():
        return fault
    return f"--{word.replace('_', '-')}: {rest}"


def _print_text(key: dict[str, Any]) -> None:
    """Print the text of a key alone on stdout, for scripts; the rest on stderr."""
    err.print(escape(key_words(key)))
    sys.stdout.write(f"{key['key']}\n")
    sys.stdout.flush()
    err.print(escape(_HOW))
    if not key["needed"]:
        err.print(escape(_NOT_NEEDED))
