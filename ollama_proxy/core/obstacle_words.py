"""Say why no offer of a pool is asked at this moment, and when one is again. Pure."""

import math
from collections.abc import Mapping

from ollama_proxy.core.lifecycle.fault_words import length_words
from ollama_proxy.core.offer_choice import Obstacle


def next_try_s(hindered: Mapping[str, Obstacle], now: float) -> float:
    """Return in how many seconds the first offer is asked again; inf: unknown."""
    ends = [one.until for one in hindered.values() if one.until is not None]
    return max(0.0, min(ends, default=math.inf) - now)


def obstacle_words(hindered: Mapping[str, Obstacle], now: float) -> str:
    """Return each offer's reason, by its name, and what ends the first of them."""
    reasons = "; ".join(
        f"{name}: {one.message}" if len(hindered) > 1 else one.message
        for name, one in hindered.items()
    )
    return f"no instance could be started: {reasons} ({_end_words(hindered, now)})"


def is_off(hindered: Mapping[str, Obstacle]) -> bool:
    """Tell whether every offer waits for a person, or for its settings to change."""
    return bool(hindered) and all(one.is_off for one in hindered.values())


def _end_words(hindered: Mapping[str, Obstacle], now: float) -> str:
    left_s = next_try_s(hindered, now)
    if not is_off(hindered):
        if math.isinf(left_s):
            return "the next try follows"
        return f"next try in {left_s:.0f} s" if left_s else "next try with a request"
    until_then = "" if math.isinf(left_s) else f", or {length_words(left_s)} pass"
    return (
        "requests start none until somebody runs `ollama-proxy wake` or changes the"
        f" settings{until_then}"
    )
