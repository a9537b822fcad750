"""Misbehave on demand: per request by a header, or for all by a default.

``X-Simulator-Fault: reset-after=3`` and others, separated by commas. Without faults,
the simulator behaves like Ollama.
"""

from dataclasses import dataclass, fields

from aiohttp import web

HEADER = "X-Simulator-Fault"


@dataclass(frozen=True, slots=True)
class Faults:
    """Holds the faults of one request.

    - ``status``: respond with this status and an error.
    - ``delay``: seconds before anything happens.
    - After so many pieces of a stream, ``reset_after`` resets the connection,
      ``end_after`` ends the stream cleanly, ``error_after`` writes an error into it,
      and ``stall_after`` sends nothing more.
    """

    status: int | None = None
    delay: float = 0.0
    reset_after: int | None = None
    end_after: int | None = None
    error_after: int | None = None
    stall_after: int | None = None


def requested(request: web.Request, default: Faults) -> Faults:
    """Return the faults that the request asks for, else the default ones."""
    text = request.headers.get(HEADER)
    if text is None:
        return default
    known = {field.name for field in fields(Faults)}
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        key = name.replace("-", "_")
        if key not in known:
            raise web.HTTPBadRequest(text=f"no fault {name!r}; known: {sorted(known)}")
        values[key] = float(number)
    whole = {key: int(value) for key, value in values.items() if key != "delay"}
    return Faults(**whole, delay=values.get("delay", 0.0))
