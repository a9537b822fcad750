"""Read what a hub answers to a beat: the next beat, a drain, wanted models, a word."""

import json
import math
from dataclasses import dataclass
from typing import Any

from ollama_proxy.base.terminal_text import shown
from ollama_proxy.core.nodes.beat_models import MOST_MODELS, is_name

SOONEST_S = 1.0
LATEST_S = 3600.0
_LONGEST_QUOTE = 300


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """Holds what the hub wants of this node.

    ``next_beat_s``: the time to the next beat; None: as the node's settings say.
    ``message``: for the log, on one line. ``wanted``: models that the node shall pull.
    """

    next_beat_s: float | None = None
    is_drained: bool = False
    message: str = ""
    wanted: tuple[str, ...] = ()


def read_answer(text: str) -> HubAnswer:
    """Return what an answer says. A former hub's says nothing, whatever its shape."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return HubAnswer()
    message, wanted = body.get("message"), body.get("wanted_models")
    return HubAnswer(
        _seconds(body.get("next_beat_s")),
        body.get("drain") is True,
        on_one_line(message) if isinstance(message, str) else "",
        _names(wanted) if isinstance(wanted, list) else (),
    )


def on_one_line(text: str) -> str:
    """Return foreign words as a line of at most 300 characters."""
    # Cut first: a hub may send much.
    return shown(" ".join(text[: 4 * _LONGEST_QUOTE].split()))[:_LONGEST_QUOTE]


def _seconds(value: object) -> float | None:
    """Return a time within the bounds; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return None if math.isnan(seconds) else min(max(seconds, SOONEST_S), LATEST_S)


def _names(wanted: list[Any]) -> tuple[str, ...]:
    names = (one for one in wanted if isinstance(one, str) and is_name(one))
    return tuple(dict.fromkeys(names))[:MOST_MODELS]
