"""Every event name that is logged, and how a log line is rendered.

One line per request, one per transition. Never a prompt, an answer, a key or a
token. Lines are JSON where nobody looks at a terminal.
"""

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
SWEEP_FAILED: Final = "sweep.failed"
CATALOGUE_REFRESHED: Final = "catalogue.refreshed"
CATALOGUE_FAILED: Final = "catalogue.failed"
PROXY_STARTED: Final = "proxy.started"
PROXY_STOPPING: Final = "proxy.stopping"
SIMULATOR_USED: Final = "simulator.used"
TASK_CRASHED: Final = "task.crashed"
ILLEGAL_TRANSITION: Final = "instance.illegal_transition"
STORE_FAILED: Final = "store.failed"


def configure(level: str, stream: TextIO | None = None) -> None:
    """Set up logging for the process: ``level`` is a name such as ``info``."""
    out = stream if stream is not None else sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = (
        structlog.dev.ConsoleRenderer()
        if out.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks
            if not out.isatty()
            else _keep_exception,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=out, force=True)


def _keep_exception(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Leave the exception to the console's own renderer."""
    return event
