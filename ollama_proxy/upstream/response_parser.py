"""Parse the response of an instance to one request.

No socket, no clock: bytes go in, a head and pieces of a body come out. httptools
(llhttp, Node's parser) finds the end of a response. This module adds what it leaves
open: responses to HEAD, bodies that end with the connection, interim responses,
transfer codings that would get lost, and a limit on bytes that are neither head nor
body (RFC 9112 §6). A response that can be read in two ways is an error, as in Go's
client.
"""

from collections.abc import Iterator
from typing import NamedTuple

import httptools
from multidict import CIMultiDict, CIMultiDictProxy

MAX_HEAD = 1024 * 1024
"""How many bytes in a row may contain no byte of a body: as in Go's server."""

_CONTINUE = 100
_FIRST_FINAL = 200
_BODILESS = frozenset({204, 304})
_VERSIONS = frozenset({"1.0", "1.1"})
_HEAD_END = b"\r\n\r\n"


_Parser = httptools.HttpResponseParser


class ResponseError(Exception):
    """Reports bytes that are not an answer, or not a whole one."""


class ResponseHead(NamedTuple):
    """Holds status line and headers of a response; ``headers`` as received."""

    status: int
    reason: str
    headers: CIMultiDictProxy[str]


class ResponseParser:
    """Collects the response to one request of the given ``method``.

    It handles one response only: httptools would add a trailer to the next one.

    - ``heard``: at least one byte was received. ``invited``: ``100 Continue`` was.
    - ``head``: set once it is complete.
    - ``pieces``: unread parts of the body; the reader clears the list.
    - ``complete``: the whole response was received. ``reusable``: the connection may
      then carry another request.
    - ``between_chunks``: the next byte begins a chunk's length; whole chunks may bypass
      `feed`.
    """

    def __init__(self, method: str) -> None:
        self.head: ResponseHead | None = None
        self.pieces: list[bytes] = []
        self.heard = False
        self.invited = False
        self.complete = False
        self.reusable = False
        self.between_chunks = False
        self._is_bodiless = method == "HEAD"
        self._ends_with_connection = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._barren = 0
        self._line_end = b""
        self._is_chunk_over = False
        self._whole: int | None = None
        self._parser: _Parser | None = httptools.HttpResponseParser(_Callbacks(self))

    def feed(self, data: bytes) -> None:
        """Parse received bytes; raises `ResponseError` if they are no answer."""
        self.heard = True
        if self._parser is None:
            self.reusable = False
            return
        for part in self._heads_apart(data):
            self._read(part)
        self.between_chunks = (
            self._is_chunk_over and not self.complete and data.endswith(b"\r\n")
        )
        if self.pieces:
            self._barren = 0
            if self._whole is not None:
                del self.pieces[self._whole :]
        else:
            self._barren += len(data)
            if self._barren > MAX_HEAD:
                raise ResponseError(f"it sent {MAX_HEAD} bytes of headers and no body")
        if self.complete:
            self._parser = None  # breaks a reference cycle

    def _heads_apart(self, data: bytes) -> Iterator[bytes]:
        """Yield received bytes, cut at the end of a head: no body may follow it."""
        joined, begun_at, looked_at = self._line_end + data, len(self._line_end), 0
        while self.head is None:
            found = joined.find(_HEAD_END, looked_at)
            if found < 0:
                self._line_end = joined[looked_at:][1 - len(_HEAD_END) :]
                break
            self._line_end = b""
            end = found + len(_HEAD_END)
            yield joined[begun_at:end]
            begun_at = looked_at = end
        if begun_at < len(joined):
            yield joined[begun_at:]

    def _read(self, data: bytes) -> None:
        """Parse bytes; the response may be complete before they end."""
        parser = self._parser
        if parser is None:
            self.reusable = False
            return
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise ResponseError("it speaks another protocol") from error
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, ResponseError):
                raise error.__context__ from None
            if not self.complete:  # else: bytes after the answer are ignored
                raise ResponseError(f"it does not speak HTTP/1.1: {error}") from error
            self.reusable = False
        if self._is_bodiless and self.head is not None:
            self.complete, self.reusable = True, parser.should_keep_alive()
            self._parser = None  # it would parse further bytes as a body

    def end(self) -> None:
        """Handle the end of the connection; raises `ResponseError` if it is early."""
        if self.head is None:
            raise ResponseError("it closed the connection")
        if not self.complete and not self._ends_with_connection:
            raise ResponseError("it closed the connection in the middle of its answer")
        self.complete, self.reusable = True, False

    def close(self) -> None:
        """Drop all state: the parser and this object refer to each other."""
        self._parser = None
        self.pieces.clear()

    def on_field(self, name: bytes, value: bytes) -> None:
        """Add a header; fields after the head are trailers, which are ignored."""
        self._fields.append((name, value))

    def on_reason(self, part: bytes) -> None:
        """Take in a part of the words after the status."""
        self._reason += part

    def on_head(self) -> None:
        """Handle the end of a head; an interim one is dropped."""
        if self._parser is None or self.complete:
            return
        status = self._parser.get_status_code()
        if status < _CONTINUE:
            raise ResponseError(f"its status is {status:03}, which is none")
        if self._parser.get_http_version() not in _VERSIONS:
            version = self._parser.get_http_version()
            raise ResponseError(f"it answers in HTTP/{version}")
        if status < _FIRST_FINAL:
            self.invited = self.invited or status == _CONTINUE
            return
        headers = CIMultiDict(
            [
                (
                    name.decode("ascii", "surrogateescape"),
                    value.decode("utf-8", "surrogateescape"),
                )
                for name, value in self._fields
            ]
        )
        codings = headers.getall("Transfer-Encoding", ())
        if codings and [coding.strip().lower() for coding in codings] != ["chunked"]:
            raise ResponseError("its Transfer-Encoding is not 'chunked' alone")
        self._is_bodiless = self._is_bodiless or status in _BODILESS
        self._ends_with_connection = (
            not self._is_bodiless and not codings and "Content-Length" not in headers
        )
        reason = _printable(self._reason.decode("utf-8", "surrogateescape"))
        self.head = ResponseHead(status, reason, CIMultiDictProxy(headers))

    def on_begin(self) -> None:
        """Handle the start of a message; one after the answer was not asked for."""
        if self.complete:
            self._whole = len(self.pieces) if self._whole is None else self._whole
            self.reusable = False
        else:
            self._fields.clear()
            self._reason = b""

    def on_chunk_begun(self) -> None:
        """Handle the end of a chunk's length line."""
        self._is_chunk_over = False

    def on_chunk_over(self) -> None:
        """Handle the end of a chunk, with its line break."""
        self._is_chunk_over = True

    def on_complete(self) -> None:
        """Handle the end of a message."""
        if self._parser is not None and self.head is not None and not self.complete:
            self.complete = True
            is_old = self._parser.get_http_version() != "1.1"
            is_odd = is_old and "Transfer-Encoding" in self.head.headers
            self.reusable = self._parser.should_keep_alive() and not is_odd


class _Callbacks:
    """Binds the names that httptools looks up once, when it is made."""

    def __init__(self, parser: ResponseParser) -> None:
        self.on_message_begin = parser.on_begin
        self.on_status = parser.on_reason
        self.on_header = parser.on_field
        self.on_headers_complete = parser.on_head
        self.on_body = parser.pieces.append
        self.on_chunk_header = parser.on_chunk_begun
        self.on_chunk_complete = parser.on_chunk_over
        self.on_message_complete = parser.on_complete


def _printable(text: str) -> str:
    """Return a text without what does things to a terminal."""
    return text if text.isprintable() else "".join(filter(str.isprintable, text))
