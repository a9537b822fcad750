"""Report in plain words on a machine that will not serve, from its events.

Fly's API has no log. A machine's events show what happened, by whom, and at an end the
exit code, the signal, and whether memory ran out. An event may contain the whole
configuration, with its keys, so only known words of it are shown.

Sources: superfly/fly-go ``machine_types.go`` (``MachineEvent``, ``MachineExitEvent``),
superfly/docs ``reference/machines/_get.erb`` (-1 is no signal; times are in ms).
"""

import asyncio
import re
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.machines import Machine
from ollama_proxy.backends.foreign_words import plain_words
from ollama_proxy.base.errors import BackendError
from ollama_proxy.fleet.reports import masked

MOST_LINES = 40
_FOLLOW = MOST_LINES - 1
_LINE = 200  # 40 of them fit into the 8 KiB that are kept of a report
_ASK_S = 10.0
_BEGINS = {"start", "launch", "restart", "update"}
_PLAIN = re.compile(r"[\w-]{1,24}\Z")
_ERROR_KEYS = ("error", "message", "reason")


class Evidence(NamedTuple):
    """Says why a machine does not serve, in a sentence if known, and what to read."""

    why: str
    report: str


NOTHING = Evidence("", "")
"""An intended end needs no report."""


class Exit(NamedTuple):
    """Says how a machine's program ended; None and False where unknown."""

    code: int | None
    signal: int | None
    out_of_memory: bool
    requested: bool


async def evidence_of(api: FlyApi, machine: Machine) -> Evidence:
    """Return what a machine's events show; fetch them if it has none.

    Never raises a `BackendError`: the report says what could not be fetched.
    """
    shown, problem = events_in(machine.events), ""
    if not shown:
        shown, problem = await _asked_for(api, machine.id)
    return evidence(machine, shown, problem)


async def evidence_of_gone(
    api: FlyApi, machine_id: str, last: Machine | None
) -> Evidence:
    """Return what is known about a machine that Fly does not show any more.

    ``last``: the machine at the last look; None if this process has not seen it.
    """
    machine = last or Machine(machine_id)
    events, problem = await _asked_for(api, machine_id)
    if not events and machine.events:
        told = evidence(machine, events_in(machine.events))
        gone = f"it is not there any more ({problem or 'no events'}); the last look:"
        lines = [gone[:_LINE], *told.report.split("\n")]
        return Evidence(told.why, "\n".join(lines[:1] + lines[1:][-_FOLLOW:]))
    return evidence(machine, events, problem)


async def _asked_for(api: FlyApi, machine_id: str) -> tuple[list[dict[str, Any]], str]:
    """Return the events of a machine, or why there are none."""
    try:
        async with asyncio.timeout(_ASK_S):
            return events_in(await api.events(machine_id, limit=MOST_LINES)), ""
    except TimeoutError:
        return [], f"Fly does not answer within {_ASK_S:.0f} s"
    except BackendError as error:
        return [], str(error)


def evidence(
    machine: Machine, events: Sequence[dict[str, Any]], problem: str = ""
) -> Evidence:
    """Return what events tell of a machine; ``problem``: why there are none. Pure."""
    where = machine.region or "an unknown region"
    first = f"machine {machine.id} in {where}: state {machine.state!r}"
    if machine.host_status != "ok":
        first += f", its host is {machine.host_status!r}"
    lines = [_line(event) for event in events[-_FOLLOW:]]
    if problem:
        lines = [f"its events could not be fetched: {problem}"]
    elif not lines:
        lines = ["Fly shows no event of it"]
    report = "\n".join(masked(line)[:_LINE] for line in (first, *lines))
    return Evidence(_why(_of_last_run(events)), report)


def events_in(told: object) -> list[dict[str, Any]]:
    """Return the events of an answer, the oldest first; skip invalid ones."""
    if not isinstance(told, list):
        return []
    events = [one for one in reversed(told) if isinstance(one, dict)]
    return sorted(events, key=lambda one: _whole(one.get("timestamp")) or 0)


def _kind(event: dict[str, Any]) -> str:
    return str(event.get("type") or "")


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _of_last_run(events: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return the events since the machine was last begun: older ends are others'."""
    begun = [n for n, one in enumerate(events) if _kind(one) in _BEGINS]
    return events[begun[-1] :] if begun else events


def _exit_of(event: dict[str, Any]) -> Exit | None:
    """Return how a program ended, if an event shows it; a monitor's event wraps it."""
    request = event.get("request")
    if not isinstance(request, dict):
        return None
    monitor = request.get("MonitorEvent")
    inner = monitor.get("exit_event") if isinstance(monitor, dict) else None
    told = inner or request.get("exit_event")
    if not isinstance(told, dict):
        return None
    signals = (_whole(told.get(name)) for name in ("signal", "guest_signal"))
    return Exit(
        _whole(told.get("exit_code", 0)),  # Go omits a zero
        next((one for one in signals if one is not None and one > 0), None),
        told.get("oom_killed") is True,
        told.get("requested_stop") is True,
    )


def _why(events: Sequence[dict[str, Any]]) -> str:
    """Return why the last run ended, and what to do; "" if unknown."""
    for event in reversed(events):
        if (found := _exit_of(event)) is not None:
            return _ending(found, _who_stopped(events))
    for event in reversed(events):
        if said := _said(event):
            return f"Fly says: {masked(said)}"
    return ""


def _ending(found: Exit, by: str) -> str:
    if found.out_of_memory:
        return (
            f"it ran out of memory ({_figures(found)}); choose a smaller model, or a"
            " larger FLY_VM_SIZE or FLY_VM_MEMORY"
        )
    if found.requested:
        return f"it was stopped {by}"
    if found.signal is not None or found.code:
        return f"its program ended ({_figures(found)}); `fly logs` has its last words"
    return (
        f"it ended by itself ({_figures(found)}), as it does when it has heard nothing"
        " of the proxy for FLY_DEAD_MAN_TIMEOUT, or after OLLAMA_PROXY_MAX_LIFETIME"
    )


def _who_stopped(events: Sequence[dict[str, Any]]) -> str:
    """Return the cause of a stop: Fly's own proxy, if no client was connected."""
    sources = [
        str(one.get("source")) for one in events if _kind(one) in {"stop", "suspend"}
    ]
    source = sources[-1] if sources else ""
    if source == "user":
        return "by somebody: with `fly`, in the dashboard, or by a call of the API"
    named = f" ({source})" if _PLAIN.match(source) else ""
    return f"by Fly{named}, as it does if nobody is connected (FLY_AUTOSTOP)"


def _figures(found: Exit) -> str:
    """Return exit code and signal in words."""
    code = "unknown" if found.code is None else str(found.code)
    words = [f"exit code {code}"]
    if found.signal is not None:
        words.append(_signal_name(found.signal))
    return ", ".join(words)


def _signal_name(number: int) -> str:
    try:
        return f"signal {number}, {signal.Signals(number).name}"
    except ValueError:
        return f"signal {number}"


def _said(event: dict[str, Any]) -> str:
    """Return the words of an event that tell of an error."""
    places = (event, event.get("request"))
    for place in places:
        if not isinstance(place, dict):
            continue
        for key in _ERROR_KEYS:
            if isinstance(said := place.get(key), str) and said.strip():
                return plain_words(said)
    return ""


def _line(event: dict[str, Any]) -> str:
    """Return an event on one line, by its known words alone."""
    words = [_moment(event.get("timestamp"))]
    kinds = (event.get("type"), event.get("status"))
    words += [plain_words(str(kind))[:40] for kind in kinds if kind]
    if source := event.get("source"):
        words.append(f"by {plain_words(str(source))[:40]}")
    line = " ".join(words)
    if (found := _exit_of(event)) is not None:
        line += f": {_figures(found)}"
        line += ", out of memory" if found.out_of_memory else ""
        line += ", as requested" if found.requested else ", by itself"
    elif said := _said(event):
        line += f": {said}"
    return line


def _moment(told: object) -> str:
    """Return a moment in ms since the epoch as a date."""
    moment = _whole(told)
    try:
        when = datetime.fromtimestamp((moment or 0) / 1000.0, UTC)
    except (ValueError, OverflowError, OSError):
        moment = None
    return "at an unknown time" if moment is None else f"{when:%Y-%m-%d %H:%M:%S} UTC"
