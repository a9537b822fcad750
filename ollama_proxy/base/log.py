"""Name every logged event, and render log lines.

One line per request, one per transition. No line contains a prompt, a response, a key
or a token. Lines are JSON unless the output is a terminal.
"""

import asyncio
import contextlib
import functools
import json
import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import msgspec
import structlog

from ollama_proxy.base.command_log import as_sentence
from ollama_proxy.base.library_log import LibraryLog, tell_exception
from ollama_proxy.base.terminal_text import shown_json, shown_values

REQUEST_RELAYED: Final = "request.relayed"
REQUEST_ANSWERED: Final = "request.answered"
REQUEST_ABANDONED: Final = "request.abandoned"
REQUEST_INTERRUPTED: Final = "request.interrupted"
REQUEST_REFUSED: Final = "request.refused"
INSTANCE_TRANSITION: Final = "instance.transition"
OFFER_PASSED_OVER: Final = "offer.passed_over"
POOL_PLANNED: Final = "pool.planned"
INSTANCE_CALL_FAILED: Final = "instance.call_failed"
LAUNCH_ABANDONED: Final = "launch.abandoned"
LAUNCH_REPORT: Final = "launch.report"
INSTANCE_SWEPT: Final = "instance.swept"
INSTANCE_DOUBLE: Final = "instance.double"
INSTANCE_BROKEN: Final = "instance.broken"
SWEEP_FAILED: Final = "sweep.failed"
CATALOGUE_REFRESHED: Final = "catalogue.refreshed"
CATALOGUE_FAILED: Final = "catalogue.failed"
LIST_MISSING: Final = "list.missing"
CHANGE_MISSING: Final = "change.missing"
PROXY_STARTED: Final = "proxy.started"
DATE_SET: Final = "date.set"
DATE_UNSET: Final = "date.unset"
FEW_DESCRIPTORS: Final = "descriptors.few"
METRICS_SERVED: Final = "metrics.served"
HUB_SERVED: Final = "hub.served"
PROXY_STOPPING: Final = "proxy.stopping"
CERTIFICATE_RENEWED: Final = "certificate.renewed"
CERTIFICATE_KEPT: Final = "certificate.kept"
CERTIFICATE_UNUSABLE: Final = "certificate.unusable"
HANDSHAKE_FAILED: Final = "handshake.failed"
SIGNAL_IGNORED: Final = "signal.ignored"
SETTINGS_RENAMED: Final = "settings.renamed"
SETTINGS_UNUSED: Final = "settings.unused"
UPSTREAM_UNSAFE: Final = "upstream.unsafe"
SIMULATOR_USED: Final = "simulator.used"
TASK_CRASHED: Final = "task.crashed"
ILLEGAL_TRANSITION: Final = "instance.illegal_transition"
STORE_FAILED: Final = "store.failed"
USAGE_UNWRITTEN: Final = "usage.unwritten"
STATE_DAMAGED: Final = "state.damaged"
STATE_READABLE: Final = "state.readable"
OWNER_CHANGED: Final = "owner.changed"
OWNERS_OTHER: Final = "owners.other"
GROUPS_UNSEEN: Final = "groups.unseen"
STATE_COPIED: Final = "state.copied"
CONTROL_SOCKET_MISSING: Final = "control_socket.missing"
DEPLOYMENT_STEP: Final = "deployment.step"
HOST_FOREIGN: Final = "host.foreign"
ACCESS_OPEN: Final = "access.open"
ORDERS_NEED_KEY: Final = "orders.need_key"
STATE_PASSING: Final = "state.passing"
MODEL_NOT_LOADED: Final = "model.not_loaded"
MODEL_LOST: Final = "model.lost"
PULL_ENDED: Final = "pull.ended"
LAUNCH_STAGES: Final = "launch.stages"
STAGE_ENDED: Final = "launch.stage_ended"
STAGES_UNKNOWN: Final = "launch.stages_unknown"
DRIVER_UNKNOWN: Final = "launch.driver_unknown"
GPU_UNUSED: Final = "gpu.unused"
FIREWALL_OPEN: Final = "firewall.open"
FIREWALL_ADMITTED: Final = "firewall.admitted"
FIREWALL_NARROWED: Final = "firewall.narrowed"
FIREWALL_FAILED: Final = "firewall.failed"
ANSWER_LOST: Final = "answer.lost"
NODE_FAILED: Final = "node.failed"
REQUEST_FAILED: Final = "request.failed"
LIBRARY_WARNED: Final = "library.warned"
ORDER_GIVEN: Final = "order.given"
NODE_STARTED: Final = "node.started"
NODE_STOPPING: Final = "node.stopping"
NODE_REGISTERED: Final = "node.registered"
NODE_STATE: Final = "node.state"
NODE_REMOVED: Final = "node.removed"
NODE_ID_UNWRITTEN: Final = "node_id.unwritten"
NODE_JOINED: Final = "node.joined"
NODES_WITHOUT_KEY: Final = "nodes.without_key"
HUB_AUTHORITY_LOST: Final = "hub.authority_lost"
HUB_TOLD: Final = "hub.told"
HUB_AWAY: Final = "hub.away"
HUB_REFUSED: Final = "hub.refused"
HUB_MESSAGE: Final = "hub.message"
MODEL_PULL: Final = "model.pull"
NODE_DRAINED: Final = "node.drained"
NODE_UNDRAINED: Final = "node.undrained"
TUNNELS_OPEN: Final = "tunnels.open"
TUNNELS_AWAY: Final = "tunnels.away"
OLLAMA_AWAY: Final = "ollama.away"
OLLAMA_BACK: Final = "ollama.back"
KEYS_FILE_READ: Final = "keys_file.read"
KEYS_FILE_UNUSABLE: Final = "keys_file.unusable"


class RequestLog:
    """Writes the line of each request as structlog would, without its overhead.

    Every request writes one. On a terminal, and before `configure`, structlog renders
    it.
    """

    def __init__(self) -> None:
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
            keys.update(event=event, level="info", timestamp=_now())
            self._out.soon(_json(keys))


REQUESTS = RequestLog()
"""The lines of requests; logging is one for the process, as structlog's is."""


def configure(
    level: str,
    stream: TextIO | None = None,
    *,
    has_colours: bool = True,
    of_command: bool = False,
) -> None:
    """Set up logging for the process: ``level`` is a name such as ``info``.

    ``has_colours``: whether a terminal gets colours. ``of_command``: the reader is a
    person, so events become sentences, from the level warning on.
    """
    out = stream if stream is not None else sys.stderr
    lines = _ForgivingLogger(out)
    number = logging.getLevelNamesMapping()[level.upper()]
    if of_command and number > logging.DEBUG:
        number = max(number, logging.WARNING)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=has_colours)
        if out.isatty()
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            tell_exception,
            *([_shown_event] if out.isatty() else []),
            as_sentence if of_command else renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    REQUESTS.configure(
        None if out.isatty() else lines, is_wanted=number <= logging.INFO
    )
    handler = LibraryLog(LIBRARY_WARNED)
    logging.basicConfig(
        level=max(number, logging.WARNING), handlers=[handler], force=True
    )


def _shown_event(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Return an event for a terminal, which obeys none of it."""
    return {key: shown_values(value) for key, value in event.items()}


def _now() -> str:
    """Return the time as structlog's `TimeStamper` writes it."""
    now_ns = time.time_ns()
    return f"{_second(now_ns // 10**9)}.{now_ns % 10**9 // 1000:06d}Z"


@functools.lru_cache(maxsize=2)  # most lines are in the same second as the last
def _second(since_epoch: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_epoch))


def _json(event: object, **_options: object) -> str:
    """Return an event as JSON; other types become text.

    Control characters that JSON leaves as they are get escaped: a terminal may show it.
    """
    try:
        text = msgspec.json.encode(event, enc_hook=repr).decode()
    except UnicodeEncodeError:  # a lone surrogate, from a header for example
        return json.dumps(event, default=repr)
    # JSON escapes the other control characters of ASCII. To look at each character of
    # the text, as `shown_json` does, would take half a microsecond.
    return text if text.isascii() and "\x7f" not in text else shown_json(text)


class _ForgivingLogger(structlog.PrintLogger):
    """Writes lines; ignores a stream that can't be written any more.

    A closed or full log must not end the process that watches the bill.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._out = out
        self._lines: list[str] = []

    def msg(self, message: str) -> None:
        """Write one line at once, if it can be written, with the lines held back."""
        self._lines.append(message)
        self.flush()

    def soon(self, message: str) -> None:
        """Write one line before the event loop polls its sockets again.

        So requests that are answered together share one system call.
        """
        self._lines.append(message)
        # The first line schedules the flush; later lines of the same iteration join it.
        if len(self._lines) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:  # no event loop
                self.flush()

    def flush(self) -> None:
        """Write the lines that are held back."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        lines.append("")
        with contextlib.suppress(OSError, ValueError):
            self._out.write("\n".join(lines))
            self._out.flush()

    debug = info = warning = error = critical = exception = msg
