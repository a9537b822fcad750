"""Decide what counts as use of an instance: a response that succeeds.

A response is inspected until its first token is known, and no further: after that, work
was done, however it ends. Refusals, errors and responses that break off before do not
count as use: they keep no instance awake. Pure: bytes go in, a `Claim` gets the result.
"""

from typing import Protocol

import msgspec
from multidict import CIMultiDictProxy

from ollama_proxy.core.http.compression import encoding_of
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.pull_progress import ProgressLine, read_progress

BUSY = "server busy"
"""Beginning of Ollama's 503 for a full queue (``server/sched.go``)."""

_STREAMED_CHANGES = frozenset({"/api/pull", "/api/push", "/api/create"})
_BUSY_STATUS = 503
_PLAIN_LINE = 4096  # an error is complete within this length
_LONGEST_LINE = 64 * 1024
_TELLING = 16  # longer than the beginning of any error, such as ``data: {"error"``
_LAYERS = 512
_NO_ERROR = frozenset({b"", b"null", b"false", b'""', b"{}"})
_FAILURES = frozenset({"error", "response.failed"})


class Claim(Protocol):
    """Notes which parts of a request are use of its instance."""

    def mark_used(self) -> None:
        """Note that the instance works, from now until the request ends."""

    def mark_moving(self) -> None:
        """Record that the instance worked just now."""


class UseWatch(Protocol):
    """Looks at one answer as it passes."""

    @property
    def is_settled(self) -> bool:
        """Tell whether it needs to see no more."""

    def take(self, data: bytes) -> None:
        """Take in more of the body."""

    def end(self, *, is_whole: bool) -> None:
        """Note the end of the body, whole or broken off."""


class Head(Protocol):
    """Gives status and headers of an answer."""

    @property
    def status(self) -> int:
        """Return the status."""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """Return the headers as received."""


def watch(route_name: str, head: Head, claim: Claim) -> UseWatch:
    """Return the watch that judges a response of a route.

    A compressed one can't be read, so only its status counts.
    """
    succeeded = 200 <= head.status < 300  # noqa: PLR2004 - as HTTP has it
    is_encoded = "Content-Encoding" in head.headers and bool(encoding_of(head.headers))
    if succeeded and route_name in _STREAMED_CHANGES and not is_encoded:
        return _ChangeWatch(claim)
    if succeeded:
        return _WordWatch(claim, is_encoded=is_encoded)
    if head.status == _BUSY_STATUS and not is_encoded:
        return _BusyWatch(claim)
    return NO_USE


class _NoWatch:
    """Ignores an answer that does not count as use."""

    is_settled = True

    def take(self, data: bytes) -> None:
        """Do nothing."""

    def end(self, *, is_whole: bool) -> None:
        """Do nothing."""


NO_USE: UseWatch = _NoWatch()
"""For answers that never count as use."""


class _WordWatch:
    """Finds out whether a response begins with a token or with an error.

    Blank lines, comments and pings before it are skipped.
    """

    def __init__(self, claim: Claim, *, is_encoded: bool) -> None:
        self.is_settled = False
        self._claim = claim
        self._is_encoded = is_encoded
        self._event = b""
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Take in more of the body."""
        if self._is_encoded and data:
            self._settle(is_use=True)
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest.lstrip()  # hours of spaces must not fill memory
        for line in lines:
            if not self.is_settled:
                self._read(line.strip())
        if not self.is_settled and len(self._rest) > _PLAIN_LINE:
            is_error_perhaps = b'"error"' in self._rest
            if not is_error_perhaps or len(self._rest) > _LONGEST_LINE:
                self._settle(is_use=True)

    def end(self, *, is_whole: bool) -> None:
        """Judge the response at the end of its body.

        A complete, empty body is a success, as for a copy. A body that breaks off in
        its first line counts as use unless that line is an error.
        """
        rest, self._rest = self._rest.strip(), b""
        if not self.is_settled and is_whole:
            self._read(rest)
        if not self.is_settled:
            is_word = is_whole or (len(rest) > _TELLING and b'"error"' not in rest)
            is_aside = self._event in {b"error", b"ping"} or rest.startswith(b":")
            self._settle(is_use=is_word and not is_aside)

    def _read(self, line: bytes) -> None:
        """Look at one line, of JSON or of server-sent events."""
        if line[:1] == b"{" and not self._event:
            self._settle(is_use=not is_error(line))
            return
        if not line or line.startswith((b":", b"id:", b"retry:")):
            return
        if line.startswith(b"event:"):
            self._event = line.removeprefix(b"event:").strip()
            return
        said = line.removeprefix(b"data:").strip()
        if self._event == b"ping":
            self._event = b""
        else:
            self._settle(is_use=self._event != b"error" and not is_error(said))

    def _settle(self, *, is_use: bool) -> None:
        self.is_settled, self._rest = True, b""
        if is_use:
            self._claim.mark_used()


class _BusyWatch:
    """Finds out whether a 503 is Ollama's own, whose queue is full: it works."""

    def __init__(self, claim: Claim) -> None:
        self.is_settled = False
        self._claim = claim
        self._body = b""

    def take(self, data: bytes) -> None:
        """Take in more of the body."""
        self._body += data
        self.is_settled = len(self._body) > _PLAIN_LINE

    def end(self, *, is_whole: bool) -> None:
        """Judge the response by its error message."""
        self.is_settled = True
        if is_whole and error_text(self._body).startswith(BUSY):
            self._claim.mark_used()


class _ChangeWatch:
    """Follows a pull, a push or a create: use while bytes move.

    A line with the same count as the one before, or the first line of a layer, shows no
    movement: an earlier pull may have got that far. ``success`` is use.
    """

    def __init__(self, claim: Claim) -> None:
        self.is_settled = False
        self._claim = claim
        self._rest = b""
        self._completed: dict[tuple[str, str], float] = {}

    def take(self, data: bytes) -> None:
        """Take in more of the body."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LONGEST_LINE:]
        for line in lines:
            self._read(read_progress(line))

    def end(self, *, is_whole: bool) -> None:
        """Read the remaining bytes: without a stream, they are one line, unended."""
        if is_whole:
            self._read(read_progress(self._rest))
        self._rest = b""

    def _read(self, line: ProgressLine) -> None:
        if line.error is None and line.status == "success":
            self._claim.mark_used()
            return
        layer = (line.status, line.digest)
        before = self._completed.get(layer, line.completed)
        if line.completed > before:
            self._claim.mark_moving()
        if layer in self._completed or len(self._completed) < _LAYERS:
            self._completed[layer] = max(before, line.completed)


class _Said(msgspec.Struct):
    """Holds the fields that tell an error from a word."""

    error: msgspec.Raw = msgspec.Raw()
    type: str | None = None
    object: str | None = None


def is_error(said: bytes) -> bool:
    """Tell whether a line of a response, or an event's data, is an error.

    ``{"error": …}`` as in Ollama and OpenAI, or an object of that type. Inside a string
    its quotes are escaped, so most lines need no parsing.
    """
    if b'"error"' not in said and b'"response.failed"' not in said:
        return False
    try:
        line = msgspec.json.decode(said, type=_Said)
    except UNREADABLE:
        return said.startswith(b'{"error"')
    is_failure = line.type in _FAILURES or line.object in _FAILURES
    return is_failure or bytes(line.error) not in _NO_ERROR


def error_text(body: bytes) -> str:
    """Return the error that a body tells, in any family's words; "" if none."""
    try:
        said = msgspec.json.decode(body)
    except UNREADABLE:
        return ""
    error = said.get("error") if isinstance(said, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""
