"""Every event name that is logged, and how a log line is rendered.

One line per request, one per transition. Never a prompt, an answer, a key or a
token. Lines are JSON where nobody looks at a terminal.
"""

import contextlib
import json
import logging
import sys
from typing import Any, Final, TextIO

import msgspec
import structlog

REQUEST_RELAYED: Final = "request.relayed"
REQUEST_ANSWERED: Final = "request.answered"
REQUEST_ABANDONED: Final = "request.abandoned"
INSTANCE_TRANSITION: Final = "instance.transition"
INSTANCE_CALL_FAILED: Final = "instance.call_failed"
INSTANCE_SWEPT: Final = "instance.swept"
INSTANCE_DOUBLE: Final = "instance.double"
INSTANCE_BROKEN: Final = "instance.broken"
SWEEP_FAILED: Final = "sweep.failed"
CATALOGUE_REFRESHED: Final = "catalogue.refreshed"
CATALOGUE_FAILED: Final = "catalogue.failed"
PROXY_STARTED: Final = "proxy.started"
FEW_DESCRIPTORS: Final = "descriptors.few"
PROXY_STOPPING: Final = "proxy.stopping"
SIMULATOR_USED: Final = "simulator.used"
TASK_CRASHED: Final = "task.crashed"
ILLEGAL_TRANSITION: Final = "instance.illegal_transition"
STORE_FAILED: Final = "store.failed"
MODEL_NOT_LOADED: Final = "model.not_loaded"
MODEL_LOST: Final = "model.lost"
PULL_ENDED: Final = "pull.ended"
FIREWALL_OPEN: Final = "firewall.open"
REQUEST_FAILED: Final = "request.failed"


_WITHOUT_LOCALS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
"""Tracebacks without the values of variables: these hold prompts and keys."""


class RequestLog:
    """Writes the line of each request as structlog would, without its machinery.

    There is one line per request, so it is on the way of every one of them. Where a
    person reads along, and before `configure`, structlog renders it.
    """

    def __init__(self) -> None:
        self._stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        self._logger = structlog.get_logger()
        self._out: _ForgivingLogger | None = None
        self._is_wanted = True

    def configure(self, out: "_ForgivingLogger | None", *, is_wanted: bool) -> None:
        """Write to ``out`` from now on, if lines of this level are wanted."""
        self._out, self._is_wanted = out, is_wanted

    def write(self, event: str, keys: dict[str, Any]) -> None:
        """Write one line."""
        if self._out is None:
            self._logger.info(event, **keys)
        elif self._is_wanted:
            keys.update(event=event, level="info")
            self._out.msg(_json(self._stamp(None, "info", keys)))


REQUESTS = RequestLog()
"""The lines of requests; logging is one for the process, as structlog's is."""


def configure(level: str, stream: TextIO | None = None) -> None:
    """Set up logging for the process: ``level`` is a name such as ``info``."""
    out = stream if stream is not None else sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if out.isatty()
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if out.isatty() else [_WITHOUT_LOCALS]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _ForgivingLogger(out),
        cache_logger_on_first_use=True,
    )
    direct = None if out.isatty() else _ForgivingLogger(out)
    REQUESTS.configure(direct, is_wanted=number <= logging.INFO)
    logging.basicConfig(level=max(number, logging.WARNING), stream=out, force=True)


def _json(event: object, **_options: object) -> str:
    """Return an event as JSON; what JSON does not know as text."""
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except UnicodeEncodeError:  # half a character, of a header say
        return json.dumps(event, default=repr)


class _ForgivingLogger(structlog.PrintLogger):
    """Writes lines; if nobody reads them any more, goes on without them.

    A log that is closed or full must not end what keeps an eye on the bill.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._out = out

    def msg(self, message: str) -> None:
        """Write one line at once, if it can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._out.write(message + "\n")
            self._out.flush()

    debug = info = warning = error = critical = exception = msg
