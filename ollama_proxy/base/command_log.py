"""Render log events as sentences while a command runs, for the person who typed it.

Lines of libraries are left out, and so are lines that the command prints on standard
output itself.
"""

from collections.abc import MutableMapping
from typing import Any

import structlog

from ollama_proxy.base.terminal_text import shown

_UNSAID = frozenset({"library.warned", "owner.changed"})
_LEFT_OUT = frozenset({"event", "level", "timestamp", "at", "reason", "error"})


def as_sentence(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return an event as one line for a person, as a structlog renderer.

    Raises `structlog.DropEvent` for events that are left out.
    """
    name = str(event.get("event", ""))
    if name in _UNSAID:
        raise structlog.DropEvent
    what = name.replace(".", " ").replace("_", " ")
    where = ", ".join(f"{k} {v}" for k, v in event.items() if k not in _LEFT_OUT)
    why = event.get("reason") or event.get("error")
    told = f"{what} ({where})" if where else what
    return shown(f"ollama-proxy: {told}: {why}" if why else f"ollama-proxy: {told}")
