"""Meter the answer to a request that has a key: count its chunks, keep its end.

The bytes that pass are not read: their last chunks are kept by reference, and the
figures in them are read when the answer has ended.
"""

from collections.abc import Callable
from typing import Final

from ollama_proxy.core.access.answer_start import model_at_start, prompt_at_start
from ollama_proxy.core.access.token_figures import (
    USUAL_BYTES,
    TokenFigures,
    Tokens,
    content_chunks,
    count_tokens,
    figures_at_end,
    figures_of_body,
)
from ollama_proxy.core.http.chunks import length_line
from ollama_proxy.core.http.compression import encoding_of
from ollama_proxy.core.http.headers import media_type
from ollama_proxy.serving.client_writer import Head

MANY: Final = 48
"""How many chunks are held before all but the last 16 are let go."""

LARGE: Final = 4200
"""Bytes of a chunk after which is looked at how much is held: Go's have up to 4 KB."""

_KEPT = 16
_END_BYTES = 64 * 1024
_LEAST_BYTES = 512  # figures take up to some 300 bytes, in chunks of any size
_START_BYTES = 4096
_SSE = "text/event-stream"
_STREAMS = frozenset({"application/x-ndjson", _SSE})
_WITHOUT_TEXT = frozenset({"other"})  # may answer with a picture


def ignore_growth(_output_tokens: int) -> None:
    """Do nothing: the key has no limit of tokens."""


class AnswerMeter:
    """Counts what a request with a key uses, and how long an instance works on it.

    - ``ends``: the last chunks, framed or not; it is filled by `MeteredWriter`, which
      calls `gather` when it holds too much.
    - ``is_change``: of models, which takes no tokens. ``model``: as the answer names
      it, once `tokens` was called; "" if it doesn't.
    - ``was_sent``: an instance may have begun to work. ``status``: of the answer; 0
      without one. ``is_success``: by it, the instance did what the request asks for,
      or began to. ``is_refused``: it does not do it, or failed. ``seconds``: under a
      lease. ``ended_at``: when that ended, in seconds of the event loop.
    """

    __slots__ = (
        "_begun_at",
        "_chunks",
        "_grow",
        "_head",
        "_route_name",
        "_size",
        "_start",
        "_type",
        "ended_at",
        "ends",
        "is_change",
        "is_refused",
        "is_success",
        "model",
        "seconds",
        "status",
        "was_sent",
    )

    def __init__(
        self,
        route_name: str,
        grow: Callable[[int], None] = ignore_growth,
        *,
        is_change: bool = False,
    ) -> None:
        self.is_change = is_change
        self.ends: list[bytes] = []
        self.seconds = 0.0
        self.status = 0
        self.is_success = self.is_refused = False
        self.was_sent = False
        self._begun_at = self.ended_at = 0.0
        self._route_name = route_name
        self._grow = grow
        self._chunks = self._size = 0
        self._start = b""
        self._head: Head | None = None
        self._type: str | None = None
        self.model = ""

    def start(self, now: float) -> None:
        """Note when the request is sent, in seconds of the event loop."""
        self._begun_at = now
        self.status = 0
        self.is_success = self.is_refused = self.was_sent = False

    def stop(self, now: float, *, was_sent: bool) -> None:
        """Note when it ended, in whichever way.

        A request that shares the work of another has an answer, and was not sent.
        """
        self.seconds += now - self._begun_at
        self.ended_at = now
        self.was_sent = was_sent or self.status != 0

    def begin(self, head: Head) -> None:
        """Note the head of the answer: what was held of an earlier one is let go."""
        self._head, self.status, self._type = head, head.status, None
        self.is_success = 200 <= head.status < 300  # noqa: PLR2004 - as HTTP has it
        self.is_refused = not self.is_success
        self._chunks, self._size, self._start = 0, 0, b""
        self.ends.clear()

    def take_whole(self, head: Head, body: bytes) -> None:
        """Note an answer that is here as a whole: its head, and its body unframed."""
        self.begin(head)
        self.ends.append(body)
        if len(body) > LARGE:
            self.gather()

    def take(self, pieces: list[bytes]) -> None:
        """Take in pieces of the body, without their framing."""
        ends = self.ends
        for piece in pieces:
            if piece:
                ends.append(piece)
                if len(ends) > MANY or len(piece) > LARGE:
                    self.gather()

    def gather(self) -> None:
        """Count the held chunks, and let go of all but the last."""
        ends = self.ends
        if not self._start and ends:
            self._start = _unframed(ends[0])[:_START_BYTES]
        is_stream = self._kind() in _STREAMS
        if is_stream:
            self._grow(self._chunks + len(ends))
        kept = sum(map(len, ends[-_KEPT:]))
        if kept < _LEAST_BYTES:
            self._join()
            return
        first = max(len(ends) - _KEPT, 0) if kept < _END_BYTES else _first_kept(ends)
        self._drop(first, 0 if is_stream else sum(map(len, ends[:first])))
        del ends[:first]
        if len(ends[0]) > _END_BYTES:  # a larger one is alone
            self._drop(0, len(ends[0]) - _END_BYTES)
            ends[0] = _unframed(ends[0])[-_END_BYTES:]

    def _join(self) -> None:
        """Make one chunk of many that are a few bytes each."""
        joined = b"".join(map(_unframed, self.ends))
        self._drop(len(self.ends) - 1, max(len(joined) - _LEAST_BYTES, 0))
        self.ends[:] = [joined[-_LEAST_BYTES:]]

    def _drop(self, chunks: int, size: int) -> None:
        """Count what is no longer held."""
        self._chunks += chunks
        self._size += size

    def tokens(self, prompt_bytes: Callable[[], int]) -> Tokens:
        """Return the tokens of the request, estimated where the answer has no figure.

        Sets ``model`` as well. A request without an answer had its prompt read, as far
        as is known. One that the instance refused used nothing. ``prompt_bytes``:
        called if it is needed.
        """
        if self.is_change or self.is_refused:
            return Tokens()
        is_encoded = self._head is not None and _is_encoded(self._head)
        figures = TokenFigures() if is_encoded else self._figures()
        if figures.prompt is not None and figures.output is not None:
            return Tokens(figures.prompt, figures.output)
        start = None if is_encoded else prompt_at_start(self._first())
        is_open = figures.prompt is None and start is None
        return count_tokens(
            figures,
            chunks=self._output(),
            prompt_bytes=prompt_bytes() if is_open else 0,
            start=start,
        )

    def _kind(self) -> str:
        """Return the type of the answer's content, by its head."""
        if self._type is None:
            self._type = "" if self._head is None else media_type(self._head.headers)
        return self._type

    def _figures(self) -> TokenFigures:
        """Return what the answer tells, and keep the model that it names."""
        ends, name = self.ends, self._route_name
        is_short = len(ends) == 1 and not self._chunks and len(ends[0]) < _START_BYTES
        if is_short and ends[0].startswith(b"{"):
            whole = figures_of_body(name, ends[0])
            if whole is not None:
                self.model = whole[1]
                return whole[0]
        self.model = model_at_start(self._first())
        end = b"".join(map(_unframed, ends))
        return figures_at_end(name, end, is_sse=self._kind() == _SSE)

    def _output(self) -> int:
        """Return the estimate of the answer's tokens, by its chunks or its bytes."""
        if self._kind() in _STREAMS:
            chunks = self._chunks + len(self.ends)
            return content_chunks(self._route_name, chunks, self.ends)
        if self._route_name in _WITHOUT_TEXT:
            return 0
        return (self._size + sum(map(len, self.ends))) // USUAL_BYTES

    def _first(self) -> bytes:
        if self._start:
            return self._start
        return _unframed(self.ends[0]) if self.ends else b""


def _is_encoded(head: Head) -> bool:
    fields = head.headers
    return "Content-Encoding" in fields and bool(encoding_of(fields))


def _first_kept(ends: list[bytes]) -> int:
    """Return the index of the first chunk to keep: of the last 16, or 64 KB."""
    kept = 0
    for index in range(len(ends) - 1, max(len(ends) - _KEPT, 0), -1):
        kept += len(ends[index])
        if kept >= _END_BYTES:
            return index
    return max(len(ends) - _KEPT, 0)


def _unframed(chunk: bytes) -> bytes:
    """Return a chunk without length and line break, if it has them."""
    length = length_line(len(chunk))
    return chunk[len(length) : -2] if chunk.startswith(length) else chunk
