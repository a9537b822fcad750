"""Run one pull: the request, its output so far, and its followers."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.ollama.loose_json import read_loosely
from ollama_proxy.core.ollama.pull_progress import ProgressLine, read_progress

_HISTORY_BYTES = 4 * 1024 * 1024
_LAYERS = 512
_LINE_BYTES = 64 * 1024
_TOLD_LINE_BYTES = 4 * 1024


class PullRequest(msgspec.Struct, frozen=True):
    """Holds what a client asks for with ``POST /api/pull``."""

    model: str = ""
    name: str = ""
    insecure: bool = False
    stream: bool | None = None

    @property
    def model_name(self) -> str:
        """Return the model: ``model``, else the older ``name``."""
        return self.model or self.name


class EncodedPullError(UpstreamError):
    """Reports a pull whose output is compressed: it can be neither read nor joined."""

    def __init__(self, encoding: str) -> None:
        super().__init__(f"the pull's output is compressed ({encoding})", arrived=True)


@dataclass(frozen=True, slots=True)
class PullHead:
    """Holds status line and headers of a pull's answer."""

    status: int
    reason: str | None
    headers: CIMultiDictProxy[str]


def read_pull(body: bytes) -> PullRequest | None:
    """Return the request in a body; None if it has another shape."""
    request = read_loosely(body, PullRequest)
    return request if request is not None and request.model_name else None


class Pull:
    """Runs one pull: the head of its response, and its output so far.

    ``followers``: number of clients that wait for it. ``wanted_by``: the keys that
    asked for it; None stands for all without a key. ``stop`` cancels its request.
    ``keep`` has it keep its instance, if it did not yet. ``last``: its last line. The
    output is kept up to ``most_bytes``; a follower that falls further behind is
    disconnected. The lines for clients that join later take up to 2 MiB more.
    """

    def __init__(
        self,
        request: PullRequest,
        stop: Callable[[], None] = lambda: None,
        most_bytes: int = _HISTORY_BYTES,
        keep: Callable[[], None] = lambda: None,
    ) -> None:
        self.keep = keep
        self._most_bytes = most_bytes
        self.request = request
        self.last = b""
        self.progress = ProgressLine()
        self.head: asyncio.Future[PullHead] = asyncio.get_running_loop().create_future()
        self.head.add_done_callback(_note_seen)
        self.followers = 0
        self.wanted_by: set[KeyId | None] = set()
        self.moved = False
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._first = 0
        self._said: dict[tuple[str, str], bytes] = {}
        self._rest = b""
        self._news: set[asyncio.Event] = set()
        self._ended = False
        self._error: Exception | None = None
        self._stop = stop
        self._ended_by: str | None = None

    def stop(self, by: str) -> None:
        """End the pull soon, since no client wants it; ``by`` names the cause."""
        self._ended_by = by
        self._stop()

    async def answered(self) -> PullHead:
        """Wait for the head of its answer; raises `UpstreamError` if none comes."""
        # shield: a follower that leaves would cancel the head for all others
        return await asyncio.shield(self.head)

    @property
    def succeeded(self) -> bool:
        """Tell whether its last line was ``success``."""
        return self._ended and self.progress.status == "success"

    def say(self, data: bytes) -> None:
        """Append a piece of the response."""
        self._kept.append(data)
        self._kept_bytes += len(data)
        while self._kept_bytes > self._most_bytes and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popleft())
            self._first += 1
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._read(line)
        self._rest = self._rest[-_LINE_BYTES:]
        self._tell()

    def _read(self, line: bytes) -> None:
        """Remember the last line of each layer."""
        progress = read_progress(line)
        self.moved = self.moved or progress != self.progress
        self.last, self.progress = line, progress
        if len(line) > _TOLD_LINE_BYTES:
            return
        key = (progress.status, progress.digest)
        if key in self._said or len(self._said) < _LAYERS:
            self._said[key] = line + b"\n"

    def end(self, error: Exception | None) -> None:
        """End the output; with an error if the response is not complete.

        A pull that was stopped counts as complete: its last line names the cause.
        """
        if self._ended_by is not None and not self._is_over() and self._takes_lines():
            self.say((b"\n" if self._rest else b"") + self._told_end())
            error = None
        if self._rest.strip():
            self._read(self._rest)
        self._ended, self._error = True, error
        if not self.head.done():
            lost = error or UpstreamError("the pull was ended", arrived=True)
            self.head.set_exception(lost)
        self._tell()

    def _is_over(self) -> bool:
        """Tell whether the pull ended by itself."""
        return self.progress.status == "success" or self.progress.error is not None

    def _takes_lines(self) -> bool:
        """Tell whether lines can be added: not after a Content-Length."""
        return not (self.head.done() and "Content-Length" in self.head.result().headers)

    def _told_end(self) -> bytes:
        """Return the line with the cause of the end; set a head if there is none."""
        line = ended_line(self.request, self._ended_by or "")
        if not self.head.done():
            self.head.set_result(failed_head(len(line)))
        return line

    def _tell(self) -> None:
        for event in self._news:
            event.set()

    async def follow(self, *, joins: bool) -> AsyncGenerator[bytes, None]:
        """Yield the output to its end; `InstanceLostError` if it is not complete.

        A follower that ``joins`` gets a summary of the earlier output.
        """
        news = asyncio.Event()
        self._news.add(news)
        try:
            at = self._first
            if joins:
                at += len(self._kept)
                if said := b"".join(self._said.values()) + self._rest:
                    yield said
            while True:
                news.clear()
                while at < self._first + len(self._kept):
                    if at < self._first:
                        raise ConnectionResetError("the client takes nothing")
                    yield self._kept[at - self._first]
                    at += 1
                if self._ended:
                    break
                await news.wait()
            if self._error is not None:
                raise InstanceLostError(str(self._error)) from self._error
        finally:
            self._news.discard(news)

    async def outcome(self) -> None:
        """Wait for its end; raises `InstanceLostError` if it is not whole."""
        async for _ in self.follow(joins=True):
            pass


def ended_line(request: PullRequest, by: str) -> bytes:
    """Return the last line of a pull that was stopped."""
    message = f"the pull of {request.model_name!r} was ended by {by}"
    return msgspec.json.encode({"error": message}) + b"\n"


def failed_head(length: int) -> PullHead:
    """Return the head of an answer of ours, to a pull that has none."""
    fields = {"Content-Type": "application/json", "Content-Length": str(length)}
    return PullHead(500, "Internal Server Error", CIMultiDictProxy(CIMultiDict(fields)))


def _note_seen(head: "asyncio.Future[PullHead]") -> None:
    """Retrieve the exception of a pull without followers, or asyncio logs it."""
    if not head.cancelled():
        head.exception()
