"""Show keys on a terminal, by the answers of ``/-/keys``."""

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ollama_proxy.base.terminal_text import shown
from ollama_proxy.cli.columns import column_lines

_COLOURS = {"valid": "green", "disabled": "yellow", "expired": "red"}
_AT_MOST = 8
"""How many clients a question names."""


def keys_lines(keys: list[dict[str, Any]]) -> list[str]:
    """Return a line for each key, in columns, below a line with their titles."""
    rows = [("NAME", "ID", "STATE", "MAY", "MODELS", "LIMITS", "EXPIRES")]
    for key in keys:
        limits, expires = ", ".join(_limits(key)) or "none", key["expires"] or "never"
        row = (key["name"], key["id"], key["standing"], _may(key), _models(key))
        rows.append((*row, limits, expires))
    return column_lines(rows, left=len(rows[0]))


def key_table(key: dict[str, Any]) -> RenderableType:
    """Return all that there is to know of a key."""
    state = str(key["standing"])
    table = Table.grid(padding=(0, 2))
    table.add_row("name", Text(shown(str(key["name"]))))
    table.add_row("id", Text(str(key["id"])))
    table.add_row("state", Text(state, style=_COLOURS.get(state, "")))
    if key["source"] == "file":
        table.add_row("stands in", Text("the file of OLLAMA_PROXY_KEYS_FILE"))
    table.add_row("may", Text(_may(key)))
    table.add_row("models", Text(_models(key)))
    table.add_row("limits", Text(", ".join(_limits(key)) or "none"))
    if used := _used(key.get("used") or {}):
        table.add_row("used", Text(", ".join(used)))
    if key["max_hold"] is not None:
        table.add_row("waits", Text(f"up to {key['max_hold']:g} s for an instance"))
    table.add_row("priority", Text(str(key["priority"])))
    table.add_row("made", Text(str(key["made"] or "unknown")))
    table.add_row("expires", Text(str(key["expires"] or "never")))
    if key["former_until"] is not None:
        table.add_row("old text", Text(f"is taken until {key['former_until']}"))
    return table


def _used(used: dict[str, Any]) -> list[str]:
    """Return what a key uses now, in words: what it has limits for, and requests."""
    words = []
    if (in_flight := used.get("in_flight")) is not None:
        words.append(f"{in_flight} requests in progress")
    if (tokens := used.get("tokens_today")) is not None:
        words.append(f"{tokens} tokens today")
    if (day := used.get("spent_today")) is not None:
        words.append(f"{day:.2f} spent today")
    if (month := used.get("spent_this_month")) is not None:
        words.append(f"{month:.2f} spent this month")
    return words


def key_words(key: dict[str, Any]) -> str:
    """Return a key in one line: ``laptop (0123abcd): chat, read; all models``."""
    words = [_may(key), _models(key), *_limits(key)]
    if key["expires"] is not None:
        words.append(f"until {key['expires']}")
    return shown(f"{key['name']} ({key['id']}): {'; '.join(words)}")


def consent_question(clients: list[dict[str, Any]], watched_s: float) -> str:
    """Return the question before the first key, which names what it refuses."""
    minutes = max(1, round(watched_s / 60))
    when = "the last hour" if minutes >= 60 else f"the last {minutes} min"  # noqa: PLR2004 - minutes of an hour
    if clients:
        named = [_client(one) for one in clients[:_AT_MOST]]
        if len(clients) > _AT_MOST:
            named.append(f"{len(clients) - _AT_MOST} more")
        seen = f"seen without one in {when}: {', '.join(named)}."
    else:
        seen = f"none was seen in {when}."
    return (
        "This is the first key: from now on every request needs one, and clients"
        f" without one are refused; {seen} Make it?"
    )


def _client(client: dict[str, Any]) -> str:
    address, agent = client["address"] or "unknown", client["user_agent"]
    return shown(f"{address} ({agent or 'no user agent'})")


def _may(key: dict[str, Any]) -> str:
    rights = ", ".join(key["routes"])
    return f"{rights}, without waking" if key["no_wake"] else rights


def _models(key: dict[str, Any]) -> str:
    return shown(", ".join(key["models"])) or "all models"


def _limits(key: dict[str, Any]) -> list[str]:
    words = []
    if key["rpm"] is not None:
        words.append(f"{key['rpm']} requests a minute")
    if key["parallel"] is not None:
        words.append(f"{key['parallel']} at once")
    if key["tokens_per_day"] is not None:
        words.append(f"{key['tokens_per_day']} tokens a day")
    return words + list(key["budget"])
