"""Choose what of ``/status`` somebody should look at. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ollama_proxy.server.page.words import counted, length, price


class Weight(StrEnum):
    """Says how a notice is shown."""

    BAD = "bad"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Notice:
    """Holds one sentence, and what it is about.

    ``command``: what a person may run, "" if the sentence says it, or nothing helps.
    """

    about: str
    words: str
    weight: Weight = Weight.WARNING
    command: str = ""


def notices_of(body: dict[str, Any]) -> tuple[Notice, ...]:
    """Return the notices, the worst first, none of them twice."""
    found = [*_faults(body), *_problems(body), *_leftovers(body), *_notes(body)]
    return tuple(dict.fromkeys(found))


def _faults(body: dict[str, Any]) -> list[Notice]:
    """Return what keeps the proxy from serving."""
    found = []
    error, lockout = body["error"], body["lockout"]
    if error:
        found.append(Notice("Error", error, Weight.BAD))
    if lockout and lockout["message"] not in (error or ""):
        ends_in_s = lockout["ends_in_s"]
        ends = "" if ends_in_s is None else f" (for {length(ends_in_s)})"
        words = f"{lockout['message']}{ends}"
        found.append(Notice("No launches", words, Weight.BAD, "ollama-proxy wake"))
    return found


def _problems(body: dict[str, Any]) -> list[Notice]:
    """Return what is wrong with something beside the instances."""
    parts = (("GPU", "gpu"), ("Keys file", "keys_file"), ("TLS", "tls"))
    found = [
        Notice(about, problem)
        for about, key in parts
        if (problem := (body[key] or {}).get("problem"))
    ]
    if warning := (body["access"] or {}).get("warning"):
        found.append(Notice("Access", warning))
    if warning := (body.get("hub") or {}).get("warning"):
        found.append(Notice("Nodes", warning))
    count, limit = body["launches_unserved"], body["launch_limit"]
    if count and limit:
        words = (
            f"{count} in the last hour without a request served; after {limit} no"
            " request launches any more"
        )
        found.append(Notice("Launches", words))
    return found


def _leftovers(body: dict[str, Any]) -> list[Notice]:
    """Return what is lost, and what others left."""
    lost = [
        Notice("Lost model", f"{one['model']}: {one['reason']}")
        for one in body["lost_models"]
    ]
    return lost + [_of_other(one) for one in body["others"]]


def _of_other(other: dict[str, Any]) -> Notice:
    per_hour = other["price_per_hour"]
    cost = "its price is unknown" if per_hour is None else f"{per_hour:.4g} per hour"
    words = f"{other['name']} ({other['state']}) of the owner {other['owner']}, {cost}"
    return Notice("Another's", words, command=other["command"])


def _notes(body: dict[str, Any]) -> list[Notice]:
    """Return what is no fault, and good to know."""
    found = []
    if body["simulated"]:
        words = "the answers come from the simulator and not from a model"
        found.append(Notice("Simulator", words, Weight.NOTE))
    held = body["price"] or {}
    if held.get("parked"):
        per_hour = held["parked_per_hour"]
        cost = price(per_hour, None) or "their price is unknown"
        kept = counted(held["parked"], "stopped machine is", "stopped machines are")
        words = f"{kept} kept for the next launch, {cost}"
        found.append(Notice("Kept", words, Weight.NOTE))
    if body["detail"] and not body["stage"]:
        found.append(Notice("Connection", body["detail"]))
    return found
