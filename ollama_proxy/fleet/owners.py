"""Judge which things of other deployments in a cloud may be removed. Pure.

A deployment is an owner id in a state folder. If the folder is lost, no proxy will stop
the things with its id; if it is not, a proxy somewhere needs them. The lease of a
running instance shows the difference: a living proxy renews it long before it ends.
"""

import re
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import NamedTuple

from ollama_proxy.base.errors import TwinError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Belonging

_LAUNCH = re.compile(r"l[0-9a-f]{16}\Z")


class Judgement(NamedTuple):
    """Lists an owner's things to delete, in that order, and those to leave alone."""

    deleted: list[Belonging]
    refused: list[Belonging]


def shows_a_proxy(one: Belonging, now: float) -> bool:
    """Tell whether a living proxy has renewed a thing lately.

    The lease of a stopped, kept instance is not renewed, so it proves nothing.
    """
    return one.runs and one.lease_end is not None and one.lease_end > now


def judge(
    belongings: Iterable[Belonging],
    owner_id: str,
    named: Collection[LaunchId],
    now: float,
) -> Judgement:
    """Return which things of an owner may be deleted at the date ``now``.

    Instances with a renewed lease are refused unless their launch is ``named``. Then
    stopped instances, volumes and groups are refused as well, because that proxy may
    use them. Instances come first, since volumes and groups belong to them.
    """
    theirs = [one for one in belongings if owner_id and one.owner_id == owner_id]
    refused = [
        one for one in theirs if shows_a_proxy(one, now) and one.launch_id not in named
    ]
    if refused:
        refused = [
            one
            for one in theirs
            if one.launch_id not in named and (one in refused or not one.runs)
        ]
    deleted = [one for one in theirs if one not in refused]
    return Judgement(sorted(deleted, key=lambda one: one.launch_id is None), refused)


def twins(
    belongings: Iterable[Belonging],
    owner_id: str,
    remembers: Callable[[LaunchId], bool],
    now: float,
) -> list[Belonging]:
    """Return living instances begun by a proxy on a copy of our state folder.

    Every launch is in the journal before a cloud is called. So an instance with our
    owner id whose launch is not in the journal was begun elsewhere, or after the
    back-up from which this folder was restored. While its lease is renewed, a proxy
    uses it; afterwards it is a stray like any other.
    """
    return [
        one
        for one in belongings
        if one.owner_id == owner_id
        and one.launch_id is not None
        and _LAUNCH.match(one.launch_id)
        and shows_a_proxy(one, now)
        and not remembers(one.launch_id)
    ]


def twin_words(one: Belonging) -> str:
    """Return what a twin is, and what to do, in a sentence."""
    return (
        f"another proxy uses a copy of this state folder: {one.name} (launch"
        f" {one.launch_id}) carries our owner id, was not started from here, and its"
        " lease is renewed; nothing is started or stopped here as long as that is so."
        " Stop one of the two, or give this one a state folder of its own"
        " (OLLAMA_PROXY_STATE_DIR)"
    )


def refuse_twins(
    belongings: Iterable[Belonging],
    owner_id: str,
    remembers: Callable[[LaunchId], bool],
    now: float,
) -> None:
    """Raise `TwinError` if a proxy on a copy of our state folder has an instance."""
    for one in twins(belongings, owner_id, remembers, now):
        raise TwinError(twin_words(one))


def others(belongings: Iterable[Belonging], owner_id: str) -> list[Belonging]:
    """Return what belongs to other owners, by owner."""
    found = [one for one in belongings if one.owner_id != owner_id]
    return sorted(found, key=lambda one: (one.owner_id, one.launch_id is None, one.id))


def described(one: Belonging, now: float) -> str:
    """Return a thing in words: what, whose, how old, at what price, used or not."""
    made = one.launch_id and f", launch {one.launch_id}"
    age = "unknown" if one.made_at is None else length(now - one.made_at)
    proxy = ""
    if one.runs:
        lives = shows_a_proxy(one, now)
        proxy = ", a proxy renews its lease" if lives else ", its lease is over"
    owner = one.owner_id or "unknown"
    return (
        f"{one.name} ({one.state}), owner {owner}{made or ''}, age {age},"
        f" {price(one.per_hour)}{proxy}"
    )


def removal(one: Belonging, now: float, program: str = "ollama-proxy") -> str:
    """Return the command that removes a thing; empty if none does."""
    if not one.owner_id:
        return ""
    command = f"{program} sweep --owner {one.owner_id}"
    if shows_a_proxy(one, now) and one.launch_id:
        return f"{command} --launch {one.launch_id}"
    return command


def with_removal(one: Belonging, now: float) -> str:
    """Return a thing in words, and the command that removes it."""
    command = removal(one, now)
    how = f"`{command}` deletes it" if command else "delete it in the cloud's console"
    return f"{described(one, now)}; {how}"


def price(per_hour: float | None) -> str:
    """Return a price in words."""
    if per_hour is None:
        return "price unknown"
    return f"{per_hour:.4g} per hour" if per_hour else "free"


def length(length_s: float) -> str:
    """Return a length of time in words, to be compared at a glance."""
    minutes = max(0.0, length_s) / 60.0
    if minutes < 120.0:  # noqa: PLR2004
        return f"{minutes:.0f} min"
    hours = minutes / 60.0
    return f"{hours:.0f} h" if hours < 48.0 else f"{hours / 24.0:.0f} days"  # noqa: PLR2004


def date_in(text: str) -> float | None:
    """Return the date that a cloud writes, in epoch seconds; None if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None
