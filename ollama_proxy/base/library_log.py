"""Log messages of libraries, and exceptions, without any data of a client.

A library's message quotes its input, and so do most exceptions: a key in a header, a
query, a prompt. So a message is logged as written in the library's source, without its
arguments, and an exception by its class and location.
"""

import logging
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from traceback import walk_tb
from typing import Any

import structlog

from ollama_proxy.base.errors import ProxyError

_MAX_MESSAGE = 200
_MAX_PLACES = 20
_MAX_CAUSES = 5


class LibraryLog(logging.Handler):
    """Writes what the standard library's logging is given as lines of ``event``."""

    def __init__(self, event: str) -> None:
        super().__init__()
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line: the message's first line in the source, and its location."""
        template = str(record.msg).partition("\n")[0][:_MAX_MESSAGE]
        error = record.exc_info[1] if record.exc_info else None
        keys = {"library": record.name, "message": template, **traced(error)}
        structlog.get_logger().log(record.levelno, self._event, **keys)


def tell_exception(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace an exception by its class and place: a processor of structlog's."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    event.update(traced(error if isinstance(error, BaseException) else None))
    return event


def traced(error: BaseException | None) -> dict[str, Any]:
    """Return where an exception and its causes were raised, without their messages.

    Messages of our own errors, and of the operating system, are kept as ``reason``.
    None returns nothing.
    """
    if error is None:
        return {}
    places = [
        f"{Path(frame.f_code.co_filename).name}:{line} {frame.f_code.co_name}"
        for frame, line in walk_tb(error.__traceback__)
    ]
    told = {"error": " < ".join(_causes(error)), "at": places[-_MAX_PLACES:]}
    if isinstance(error, ProxyError):
        return told | {"reason": str(error)}
    if isinstance(error, OSError) and error.strerror:
        return told | {"reason": error.strerror}
    return told


def _causes(error: BaseException) -> Iterator[str]:
    """Yield the classes of an exception and of its causes."""
    seen: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if seen is None:
            return
        yield type(seen).__qualname__
        seen = seen.__cause__ or seen.__context__
