"""Show a pool in the table of ``status``."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

_COLOURS = {
    "ready": "green",
    "online": "green",
    "starting": "yellow",
    "draining": "yellow",
    "degraded": "yellow",
}
_SHOWN = 30
_UP = frozenset({"ready", "draining", "online", "degraded"})
_PARTS = ("offers", "instances")
_OFFER_WORDS = {"passed_over": "passed over", "off": "off"}


def tells_more(pools: Sequence[dict[str, Any]]) -> bool:
    """Tell whether there is more than one instance of one offer to show."""
    return len(pools) > 1 or any(
        len(pool.get(part) or ()) > 1 for pool in pools for part in _PARTS
    )


def add_pool(table: Table, pool: dict[str, Any]) -> None:
    """Add the rows of a pool: a summary, its instances, offers that are not tried."""
    table.add_row("pool", Text(_pool(pool), style="bold"))
    for one in pool["instances"][:_SHOWN]:
        colour = _COLOURS.get(one["state"], "")
        table.add_row("", Text(_instance(one), style=colour))
    if (more := len(pool["instances"]) - _SHOWN) > 0:
        table.add_row("", f"and {more} more; `ollama-proxy nodes list` has each node")
    for one in pool.get("offers") or ():
        if one["state"] != "open":
            table.add_row("", Text(_offer(one), style="red"))


def pool_line(pool: dict[str, Any]) -> str:
    """Return on one line what goes on in a pool; it changes when that does."""
    states = [one["state"] for one in pool["instances"]]
    counted = [f"{states.count(one)} {one}" for one in dict.fromkeys(states)]
    return (
        f"{pool['name']}: {', '.join(counted) or 'nothing runs'},"
        f" {pool['in_flight']} in flight, {pool['waiting']} waiting"
    )


def _pool(pool: dict[str, Any]) -> str:
    serves = ", ".join(pool.get("serves") or ())
    return (
        f"{pool['name']} ({serves}): {pool['ready']} ready, {pool['wanted']} wanted,"
        f" {pool['in_flight']} in flight, {pool['waiting']} waiting"
    )


def _instance(one: dict[str, Any]) -> str:
    limit = f" of {one['slots']}" if one["slots"] is not None else ""
    words = [f"{one['slot']} {one['state']}"]
    if one["stage"]:
        words.append(one["stage"])
    if one.get("draining"):
        words.append("draining")
    if one["state"] in _UP:
        words.append(f"{one['in_flight']}{limit} in flight")
    if one.get("foreign"):
        words.append(f"{one['foreign']} of others")
    if one.get("node_id"):
        words.append(_load(one))
    if one["idle_for_s"] is not None:
        words.append(f"idle for {one['idle_for_s']:.0f} s")
    if one["url"]:
        words.append(one["url"])
    if one["error"]:
        words.append(one["error"])
    return ", ".join(words)


def _load(node: dict[str, Any]) -> str:
    number = node["models"]
    models = "1 model" if number == 1 else f"{number} models"
    return f"{models}, {node['cpu']:.0%} of its processors busy"


def _offer(one: dict[str, Any]) -> str:
    ends = f" for {one['ends_in_s']:.0f} s" if one["ends_in_s"] is not None else ""
    state = _OFFER_WORDS.get(one["state"], one["state"])
    return f"offer {one['name']} is {state}{ends}: {one['reason']}"
