"""Rewrite the bytes of a connection so that there is only one way to read them.

No socket, no clock: bytes go in, and come out without trailers, chunk extensions and
anything after the last request. aiohttp's parser would take the last trailer of a
request for a header of the next one, and it stops at an upgrade without a response.
"""

import re
from collections.abc import Callable

from ollama_proxy.core.http.request_head import (
    MAX_HEAD,
    RefusedRequestError,
    is_beginning,
    read_field,
    read_head,
)

_MAX_SIZE_LINE = 4096
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_LAST_CHUNK = b"0\r\n\r\n"
_HEAD_END = b"\r\n\r\n"


class RequestStream:
    """Reads one connection's requests, one after the other.

    - ``refused``: set once a request can't be served: none of it was passed on, and
      nothing after it is.
    - ``is_broken``: a body is malformed, after its head and beginning were passed on.
    - ``requests``: how many began.
    - ``is_in_body``: the last request is not complete yet.
    """

    def __init__(self) -> None:
        self.refused: RefusedRequestError | None = None
        self.is_broken = False
        self.requests = 0
        self._read: Callable[[bytes, int], int] | None = self._read_head
        self._lines: list[bytes] = []
        self._line = bytearray()
        self._size = 0
        self._left = 0
        self._is_last = False
        self.is_in_body = False
        self._out: list[bytes] = []
        self._begun_at: int | None = None

    def feed(self, data: bytes) -> bytes:
        """Parse received bytes; return those that aiohttp's server gets."""
        at, self._begun_at = 0, None
        try:
            while at < len(data) and self._read is not None:
                at = self._read(data, at)
        except RefusedRequestError as refused:
            self._refuse(refused)
        out, self._out = self._out, []
        return out[0] if len(out) == 1 else b"".join(out)

    def close(self) -> None:
        """Read no more; this object and its next step hold each other."""
        self._read = None

    def _refuse(self, refused: RefusedRequestError) -> None:
        self._read = None
        self._line.clear()
        self._lines.clear()
        if self.is_in_body and self._begun_at is None:
            self.is_broken = True
            return
        if self._begun_at is not None:
            del self._out[self._begun_at :]
            self.requests -= 1
        self.refused = refused

    def _next_line(self, data: bytes, at: int, most: int) -> tuple[bytes | None, int]:
        """Return a line if it is whole, and where it ends; ``most`` bytes of them."""
        end = data.find(b"\n", at) + 1
        self._size += (end or len(data)) - at
        if self._size > most:
            raise RefusedRequestError(431, f"over {most} bytes of headers in a row")
        if not end:
            self._line += data[at:]
            return None, len(data)
        line = bytes(self._line) + data[at:end]
        self._line.clear()
        if not line.endswith(b"\r\n"):
            raise RefusedRequestError(400, "a line of the request ends without CR")
        return line[:-2], end

    def _read_head(self, data: bytes, at: int) -> int:
        if not self._size and (end := data.find(_HEAD_END, at)) >= 0:
            lines = data[at:end].split(b"\r\n")
            is_short = end + len(_HEAD_END) - at <= MAX_HEAD
            if lines[0] and is_short and data.count(b"\n", at, end) == len(lines) - 1:
                self._begin_request(lines)
                return end + len(_HEAD_END)
        line, at = self._next_line(data, at, MAX_HEAD)
        if line is None and not self._lines and not is_beginning(self._line):
            raise RefusedRequestError(400, "this is not a request of HTTP/1.1")
        if line is None or not (line or self._lines):  # RFC 9112 §2.2
            return at
        if line:
            self._lines.append(line)
            return at
        lines, self._lines, self._size = self._lines, [], 0
        self._begin_request(lines)
        return at

    def _begin_request(self, lines: list[bytes]) -> None:
        """Let a head pass as it can be read in one way, and be ready for its body."""
        head = read_head(lines)
        self._begun_at, self.is_in_body = len(self._out), True
        self._out.append(head.raw)
        self._is_last = head.is_last
        self.requests += 1
        if head.is_upgrade:
            self._end_request()
            self._read = self._read_too_early
        elif head.length is None:
            self._read = self._read_size
        elif head.length:
            self._left, self._read = head.length, self._read_body
        else:
            self._end_request()

    def accept_upgrade(self) -> None:
        """Let all bytes pass from now on: they are no requests any more."""
        if self._read is not None:
            self._read = self._pass_all

    def _read_too_early(self, data: bytes, at: int) -> int:  # noqa: ARG002 - as the others
        """Refuse bytes before the upgrade is accepted: no client sends any."""
        self.is_broken, self._read = True, None
        return len(data)

    def _pass_all(self, data: bytes, at: int) -> int:
        self._out.append(data[at:])
        return len(data)

    def _end_request(self) -> None:
        self.is_in_body, self._begun_at, self._size = False, None, 0
        self._read = None if self._is_last else self._read_head

    def _pass(self, data: bytes, at: int) -> int:
        """Let a body pass, as far as it has come."""
        end = min(len(data), at + self._left)
        self._out.append(data if (at, end) == (0, len(data)) else data[at:end])
        self._left -= end - at
        return end

    def _read_body(self, data: bytes, at: int) -> int:
        at = self._pass(data, at)
        if not self._left:
            self._end_request()
        return at

    def _read_size(self, data: bytes, at: int) -> int:
        line, at = self._next_line(data, at, _MAX_SIZE_LINE)
        if line is None:
            return at
        size = _SIZE.fullmatch(line)
        if size is None:
            raise RefusedRequestError(400, "a chunk of the body has no length")
        self._size, self._left = 0, int(size[1], 16)
        if self._left:
            self._out.append(b"%x\r\n" % self._left)
            self._read = self._read_chunk
        else:
            self._read = self._read_trailer
        return at

    def _read_chunk(self, data: bytes, at: int) -> int:
        at = self._pass(data, at)
        if not self._left:
            self._read = self._read_chunk_end
        return at

    def _read_chunk_end(self, data: bytes, at: int) -> int:
        line, at = self._next_line(data, at, _MAX_SIZE_LINE)
        if line is None:
            return at
        if line:
            raise RefusedRequestError(
                400, "a chunk of the body is longer than its size"
            )
        self._out.append(b"\r\n")
        self._size, self._read = 0, self._read_size
        return at

    def _read_trailer(self, data: bytes, at: int) -> int:
        """Read a trailer and drop it."""
        line, at = self._next_line(data, at, MAX_HEAD)
        if line:
            read_field(line)
        elif line is not None:
            self._out.append(_LAST_CHUNK)
            self._end_request()
        return at
