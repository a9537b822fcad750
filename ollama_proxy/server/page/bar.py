"""Show how far something is, as a bar with words."""

from dataclasses import dataclass

from ollama_proxy.server.page.words import percent


@dataclass(frozen=True, slots=True)
class Bar:
    """Holds how far something is, 0–1, and what the bar is called."""

    label: str
    value: float
    words: str


def bar_of(label: str, value: float | None) -> Bar | None:
    """Return a bar; None if it is not known how far something is."""
    if value is None:
        return None
    value = min(1.0, max(0.0, value))
    return Bar(label, round(value, 3), percent(value))
