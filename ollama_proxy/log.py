"""Every event name that is logged, and how a log line is rendered.

One line per request, one per transition. Never a prompt, an answer, a key or a
token. Lines are JSON where nobody looks at a terminal.
"""

import contextlib
import logging
import sys
from typing import Any, Final, TextIO

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


def configure(level: str, stream: TextIO | None = None) -> None:
    """Set up logging for the process: ``level`` is a name such as ``info``."""
    out = stream if stream is not None else sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if out.isatty()
        else structlog.processors.JSONRenderer()
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
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=out, force=True)


class _ForgivingLogger(structlog.PrintLogger):
    """Writes lines; if nobody reads them any more, goes on without them.

    A log that is closed or full must not end what keeps an eye on the bill.
    """

    def msg(self, message: str) -> None:
        """Write one line, if it can be written."""
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    debug = info = warning = error = critical = exception = msg
