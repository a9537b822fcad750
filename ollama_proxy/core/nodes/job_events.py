"""Write the lines of an answer as server-sent events. Pure."""

from typing import Final

LONGEST_LINE: Final = 16 * 1024 * 1024


class LongLineError(Exception):
    """Reports a line that is too long to be held."""


class EventWriter:
    """Makes one event of each line of a body that comes in pieces.

    ``longest``: bytes of a line that are held until it is whole.
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._rest: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> bytes:
        """Return the events that a further piece completes.

        Raises `LongLineError`.
        """
        whole, newline, rest = data.rpartition(b"\n")
        events = b""
        if newline:
            events = as_events(b"".join((*self._rest, whole)))
            self._rest, self._size = [], 0
        self._size += len(rest)
        if self._size > self._longest:
            raise LongLineError(f"a line of the answer exceeds {self._longest} bytes")
        if rest:
            self._rest.append(rest)
        return events

    def end(self) -> bytes:
        """Return the event of a last line that nothing ends."""
        return as_events(b"".join(self._rest))


def as_events(lines: bytes) -> bytes:
    """Return an event for each line that is not empty."""
    filled = (line.strip(b"\r") for line in lines.split(b"\n"))
    return b"".join(b"data: %b\n\n" % line for line in filled if line.strip())


def wants_events(accept: str) -> bool:
    """Tell whether a client asks for server-sent events, by its ``Accept``.

    One that takes lines as well gets these.
    """
    accepted = accept.lower()
    return "text/event-stream" in accepted and "ndjson" not in accepted
