"""Tell whether a response that ended cleanly is complete, by its protocol.

A gateway or guard between us and Ollama may end a body cleanly although Ollama broke
off in the middle: Caddy 2.6 does so with chunked bodies. Every protocol has its own end
mark, which is looked for while the bytes pass. The last line of a stream may be
megabytes long, so no line is buffered or parsed: a mark counts if it is a key of the
outermost object and that object is closed.
"""

import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Protocol

from ollama_proxy.core.http.headers import media_type
from ollama_proxy.core.ollama.brackets import Brackets
from ollama_proxy.core.ollama.routes import Kind, classify

_NO_CONTENT = 204
_LAST_GOOD = 299
_OVERLAP = 64
_SHORT = 2048
_LINE_BREAK = ord("\n")
_JSON_SPACE = b" \t\r\n"


class Head(Protocol):
    """Gives status and headers of an answer."""

    @property
    def status(self) -> int:
        """Return the status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers; names are found in any case."""


class EndCheck(Protocol):
    """Looks at the body of one answer as it passes."""

    def add(self, data: bytes) -> None:
        """Look at a piece; it may begin and end anywhere."""

    def add_chunks(self, chunks: list[bytes]) -> None:
        """Look at whole chunks, framed as on the wire."""

    def is_whole(self) -> bool:
        """Tell whether the answer may end here."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Names the marks by which a stream announces its end.

    - ``mark``: matches a key of the outermost object of a line and the beginning of its
      value, in at most 64 bytes.
    - ``hints``: any relevant line contains one of them. Nearly all lines contain none,
      which is cheap to test.
    - ``events``: names of events whose data ends the stream.
    - ``last_data``: data that ends the stream and is not JSON.
    """

    mark: re.Pattern[bytes]
    hints: tuple[bytes, ...]
    is_sse: bool = False
    events: frozenset[bytes] = frozenset()
    last_data: bytes | None = None


_ERROR = rb'"error"\s{0,9}:\s{0,9}[^n\s]'  # except null
_DONE = Marks(re.compile(rb'"done"\s{0,9}:\s{0,9}true|' + _ERROR), (b"true", b"error"))
_SUCCESS = Marks(
    re.compile(rb'"status"\s{0,9}:\s{0,9}"success"|' + _ERROR), (b"success", b"error")
)
_OPENAI = Marks(
    re.compile(_ERROR),
    (b"[DONE]", b"error"),
    is_sse=True,
    events=frozenset({b"error"}),
    last_data=b"[DONE]",
)
_RESPONSES = Marks(
    re.compile(
        rb'"type"\s{0,9}:\s{0,9}"(?:response\.(?:completed|incomplete|failed)|error)"|'
        + _ERROR
    ),
    (b"complete", b"failed", b"error"),
    is_sse=True,
    events=frozenset(
        {b"response.completed", b"response.incomplete", b"response.failed", b"error"}
    ),
)
_ANTHROPIC = Marks(
    re.compile(rb'"type"\s{0,9}:\s{0,9}"(?:message_stop|error)"|' + _ERROR),
    (b"message_stop", b"error"),
    is_sse=True,
    events=frozenset({b"message_stop", b"error"}),
)

_SAME_ANSWER = {"/execute": "/api/generate"}  # of a node's agent
_STREAMS: Mapping[tuple[str, str], Marks] = {
    ("application/x-ndjson", "/api/generate"): _DONE,
    ("application/x-ndjson", "/api/chat"): _DONE,
    ("application/x-ndjson", "/api/pull"): _SUCCESS,
    ("application/x-ndjson", "/api/push"): _SUCCESS,
    ("application/x-ndjson", "/api/create"): _SUCCESS,
    ("text/event-stream", "/v1/chat/completions"): _OPENAI,
    ("text/event-stream", "/v1/completions"): _OPENAI,
    ("text/event-stream", "/v1/responses"): _RESPONSES,
    ("text/event-stream", "/v1/messages"): _ANTHROPIC,
}


def check_of(method: str, target: str, head: Head) -> EndCheck | None:
    """Return the check for a response's end; None if only its framing shows it.

    ``target``: raw path and query of the request.
    """
    if "Content-Length" in head.headers or "Content-Encoding" in head.headers:
        return None
    if head.status > _LAST_GOOD or head.status == _NO_CONTENT or method == "HEAD":
        return None
    path = target.partition("?")[0]
    route = classify(method, _SAME_ANSWER.get(path, path))
    if route.kind is Kind.UNKNOWN:
        return None
    content_type = media_type(head.headers)
    if content_type == "application/json":
        return JsonCheck()
    marks = _STREAMS.get((content_type, route.name))
    return StreamCheck(marks) if marks is not None else None


class JsonCheck:
    """Tells whether JSON is closed. All but objects and arrays counts as closed."""

    def __init__(self) -> None:
        self._brackets = Brackets()
        self._first = b""

    def add(self, data: bytes) -> None:
        """Look at a piece; it may begin and end anywhere."""
        self._first = self._first or data.lstrip(_JSON_SPACE)[:1]
        self._brackets.add(data)

    def add_chunks(self, chunks: list[bytes]) -> None:
        """Look at whole chunks, framed as on the wire."""
        for chunk in chunks:
            self.add(_unframed(chunk))

    def is_whole(self) -> bool:
        """Tell whether there was a value, and it is closed."""
        return bool(self._first) and self._brackets.are_closed


class StreamCheck:
    """Tells whether a stream of lines, or of events, announced its end.

    Ollama sends a line or an event per chunk, so most chunks are whole lines without a
    hint: two or three searches handle many at once.
    """

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._hints = marks.hints
        self._line = _Line(marks.mark)
        self._held = b""
        self._is_last_event = False
        self._is_over = False
        self._may_skip = True

    def add_chunks(self, chunks: list[bytes]) -> None:
        """Look at whole chunks, framed as on the wire."""
        if self._may_skip and not self._held:
            are_lines = all(chunk[-3] == _LINE_BREAK for chunk in chunks)
            if are_lines and not self._is_hinted(b"".join(chunks)):
                return
        for chunk in chunks:
            self.add(_unframed(chunk))

    def add(self, data: bytes) -> None:
        """Inspect a piece, which may begin and end anywhere.

        A short line is held until it is complete: it may have no hint.
        """
        *ended, begun = (self._held + data).replace(b"\r", b"\n").split(b"\n")
        for line in ended:
            if not self._may_skip or self._is_hinted(line):
                self._line.add(line)
                self._end_line()
        self._held = begun
        if len(begun) > _SHORT:
            self._let_go()

    def _is_hinted(self, data: bytes) -> bool:
        return any(hint in data for hint in self._hints)

    def _let_go(self) -> None:
        """Inspect the held part of a line, and the rest as it arrives."""
        self._line.add(self._held)
        self._held, self._may_skip = b"", self._is_over

    def _end_line(self) -> None:
        """Handle the end of a line."""
        if self._line.name == b"event":
            self._is_last_event = self._line.value in self._marks.events
        elif self._says_over():
            self._is_over, self._hints, self._is_last_event = True, (), False
        self._line = _Line(self._marks.mark)
        self._may_skip = not self._is_last_event

    def _says_over(self) -> bool:
        """Tell whether the line ends the stream, as far as it has come."""
        line = self._line
        if not self._marks.is_sse:
            return line.is_marked and line.is_closed
        if line.name != b"data":
            return False
        is_last = line.is_marked or self._is_last_event
        return line.value == self._marks.last_data or (is_last and line.is_closed)

    def is_whole(self) -> bool:
        """Tell whether the end was announced, even in a line without a line break."""
        if self._held:
            self._let_go()
        return self._is_over or self._says_over()


class _Line:
    """Holds the state of the current line: its beginning, mark and end.

    The last 64 bytes are kept for the next piece: a mark may be split in two.
    """

    def __init__(self, mark: re.Pattern[bytes]) -> None:
        self.is_marked = False
        self._mark = mark
        self._start = b""
        self._brackets = Brackets()
        self._rest = b""

    @property
    def name(self) -> bytes:
        """Return the name of an event stream's field."""
        return self._start.partition(b":")[0]

    @property
    def value(self) -> bytes:
        """Return the value of such a field, if it is short."""
        return self._start.partition(b":")[2].strip()

    @property
    def is_closed(self) -> bool:
        """Tell whether its object is closed, and nothing comes behind it."""
        brackets = copy(self._brackets)
        brackets.add(self._rest)
        return brackets.are_closed and self._rest.rstrip().endswith(b"}")

    def add(self, data: bytes) -> None:
        """Look at more of it."""
        if len(self._start) < _OVERLAP:
            self._start += data[: _OVERLAP - len(self._start)]
        data, at = self._rest + data, 0
        if not self.is_marked:
            for match in self._mark.finditer(data):
                self._brackets.add(data[at : match.start()])
                at = match.start()
                if self._brackets.depth == 1 and not self._brackets.in_string:
                    self.is_marked = True
                    break
        behind = max(at, len(data) - _OVERLAP)
        self._brackets.add(data[at:behind])
        self._rest = data[behind:]


def _unframed(chunk: bytes) -> bytes:
    """Return the bytes of a chunk as it is on the wire."""
    return chunk[chunk.index(b"\n") + 1 : -2]
