"""Read the notes of a backend; some may be damaged or of another version.

A launch with an unreadable note is looked for in its cloud by its tags, like a launch
without a note.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import structlog

from ollama_proxy.base import log
from ollama_proxy.core.lifecycle.record import LaunchId

_SHOWN = 500
_T = TypeVar("_T")


def read_note(name: LaunchId, note: bytes, decode: Callable[[bytes], _T]) -> _T | None:
    """Return a note; None if it can't be read: then its text is logged."""
    try:
        return decode(note)
    except (ValueError, TypeError) as error:
        shown = bytes(note)[:_SHOWN] if isinstance(note, bytes) else note
        structlog.get_logger().warning(
            log.STATE_DAMAGED,
            reason=f"the note {name!r} can't be read ({error}); its instance, if there"
            f" is one, is looked for by its tags; it said: {shown!r}",
        )
        return None


def read_notes(
    notes: Mapping[LaunchId, bytes], decode: Callable[[bytes], _T]
) -> tuple[dict[LaunchId, _T], set[LaunchId]]:
    """Return the notes that can be read, and the launches whose notes can't."""
    read = {name: read_note(name, note, decode) for name, note in notes.items()}
    kept = {name: note for name, note in read.items() if note is not None}
    return kept, read.keys() - kept.keys()
