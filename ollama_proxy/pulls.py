"""Pulls that go on when their client leaves, and that others can join.

Ollama ends a pull with its client. Here each pull has a task of its own: clients
follow what it says, and may go. A client that asks for a model that is being
pulled joins, and is told first what was said so far, a line per layer.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import msgspec
import structlog
from multidict import CIMultiDict, CIMultiDictProxy

from ollama_proxy import log
from ollama_proxy.clock import Clock
from ollama_proxy.errors import InstanceLostError, UpstreamError
from ollama_proxy.go_json import UnreadBodyError, read_members
from ollama_proxy.outgoing import Outgoing
from ollama_proxy.pool import Lease
from ollama_proxy.progress import ProgressLine, read_progress
from ollama_proxy.relay import Relay
from ollama_proxy.routing import full_model_name, read_loosely
from ollama_proxy.tasks import TaskOwner

_HISTORY_BYTES = 4 * 1024 * 1024
_LAYERS = 512
_LINE_BYTES = 64 * 1024
_LOOK_EVERY_S = 5.0


class PullRequest(msgspec.Struct, frozen=True):
    """What a client asks for with ``POST /api/pull``."""

    model: str = ""
    name: str = ""
    insecure: bool = False
    stream: bool | None = None

    @property
    def model_name(self) -> str:
        """The model: ``model``, else the older ``name``."""
        return self.model or self.name


@dataclass(frozen=True, slots=True)
class PullHead:
    """Status line and headers of a pull's answer."""

    status: int
    reason: str | None
    headers: CIMultiDictProxy[str]


def read_pull(body: bytes) -> PullRequest | None:
    """Return what is asked for; None if the body is not of that shape."""
    request = read_loosely(body, PullRequest)
    return request if request is not None and request.model_name else None


class Pull:
    """One pull under way: its answer's head, and what it said so far.

    ``followers``: the clients that wait for it. ``last`` is its last line. What it
    says is kept up to 4 MiB: a follower that is further behind takes nothing, and is
    let go.
    """

    def __init__(self, request: PullRequest) -> None:
        self.request = request
        self.last = b""
        self.progress = ProgressLine()
        self.head: asyncio.Future[PullHead] = asyncio.get_running_loop().create_future()
        self.head.add_done_callback(_note_seen)
        self.followers = 0
        self.moved = False
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._first = 0
        self._said: dict[tuple[str, str], bytes] = {}
        self._rest = b""
        self._news: set[asyncio.Event] = set()
        self._ended = False
        self._error: Exception | None = None

    async def answered(self) -> PullHead:
        """Wait for the head of its answer; raises `UpstreamError` if there is none."""
        return await asyncio.shield(self.head)

    @property
    def succeeded(self) -> bool:
        """Whether its last word was ``success``."""
        return self._ended and self.progress.status == "success"

    def say(self, data: bytes) -> None:
        """Take in a piece of the answer as it came."""
        self._kept.append(data)
        self._kept_bytes += len(data)
        while self._kept_bytes > _HISTORY_BYTES and len(self._kept) > 1:
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
        key = (progress.status, progress.digest)
        if key in self._said or len(self._said) < _LAYERS:
            self._said[key] = line + b"\n"

    def end(self, error: Exception | None) -> None:
        """Say nothing more; with an error if the answer is not whole."""
        if self._rest.strip():
            self._read(self._rest)
        self._ended, self._error = True, error
        if not self.head.done():
            lost = error or UpstreamError("the pull was ended", arrived=True)
            self.head.set_exception(lost)
        self._tell()

    def _tell(self) -> None:
        for event in self._news:
            event.set()

    async def follow(self, *, joins: bool) -> AsyncGenerator[bytes, None]:
        """Yield what it says, to its end; `InstanceLostError` if it is not whole.

        One who ``joins`` is told in short what was said before.
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


class KeptBody:
    """A body that is in memory."""

    expects = False

    def __init__(self, data: bytes) -> None:
        self.complete = True
        self.on_invited: Callable[[], None] | None = None
        self._data = data

    async def invite(self) -> None:
        """Do nothing: it is here."""

    def payload(self) -> bytes:
        """Return the body."""
        return self._data


class Pulls:
    """The pulls under way, by instance and model."""

    def __init__(
        self,
        relay: Relay,
        *,
        clock: Clock,
        stall_s: float,
    ) -> None:
        self._relay = relay
        self._clock = clock
        self._stall_s = stall_s
        self._pulls: dict[tuple[str, str, bool], Pull] = {}
        self._tasks = TaskOwner()
        self._log = structlog.get_logger()

    def under_way(self) -> list[Pull]:
        """Return the pulls that have not ended."""
        return list(self._pulls.values())

    async def aclose(self) -> None:
        """End every pull."""
        await self._tasks.aclose()

    def join(
        self,
        request: PullRequest,
        to_send: Outgoing,
        body: bytes,
        lease: Lease,
        pulled: Callable[[PullRequest], None],
    ) -> tuple[Pull, bool]:
        """Return the pull of a model, begun now if need be, and whether it was.

        ``lease`` is what a new one holds of its instance; it is released if an
        old one is joined. ``pulled`` is called if it succeeds.
        """
        model = full_model_name(request.model_name)
        key = (lease.launch_id, model, request.insecure)
        if (pull := self._pulls.get(key)) is not None:
            lease.release()
            return pull, True
        pull = self._pulls[key] = Pull(request)
        sent = Outgoing(
            to_send.method,
            to_send.target,
            _without_framing(to_send.headers),
            KeptBody(_streamed(body, request)),
        )
        running = self._run(key, pull, sent, lease, pulled)
        self._tasks.spawn(running, name=f"pull {model}")
        return pull, False

    async def _run(
        self,
        key: tuple[str, str, bool],
        pull: Pull,
        to_send: Outgoing,
        lease: Lease,
        pulled: Callable[[PullRequest], None],
    ) -> None:
        """See a pull through, under a lease of its own."""
        error: UpstreamError | None = UpstreamError("the proxy ends", arrived=True)
        try:
            with lease:
                async with lease.until_cut():
                    await self._take(pull, to_send, lease)
            error = None
        except UpstreamError as broken:
            error = broken
        except TimeoutError:
            error = UpstreamError("the instance was lost", arrived=True)
        except InstanceLostError as broken:
            error = UpstreamError(f"the instance broke off: {broken}", arrived=True)
        finally:
            del self._pulls[key]
            pull.end(error)
            self._note_end(pull, error)
            if pull.succeeded:
                pulled(pull.request)

    async def _take(self, pull: Pull, to_send: Outgoing, lease: Lease) -> None:
        """Read the answer to its end, or until nobody waits and nothing moves."""
        limit = asyncio.timeout(None)
        watch = asyncio.get_running_loop().create_task(self._watch(pull, limit))
        try:
            async with limit, await self._relay.ask(to_send, lease.upstream) as answer:
                head = PullHead(answer.status, answer.reason, answer.headers)
                pull.head.set_result(head)
                async for data in answer.chunks():
                    lease.touch()
                    pull.say(data)
        except TimeoutError as error:
            stuck = "nobody waits for it, and it gets no further"
            raise UpstreamError(stuck, arrived=True) from error
        finally:
            watch.cancel()

    async def _watch(self, pull: Pull, limit: asyncio.Timeout) -> None:
        """End a pull that nobody follows and that gets no further."""
        moved_at = self._clock.now()
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self._stall_s))
            now = self._clock.now()
            if pull.moved or pull.followers:
                pull.moved, moved_at = False, now
            elif now - moved_at >= self._stall_s:
                limit.reschedule(asyncio.get_running_loop().time())
                return

    def _note_end(self, pull: Pull, error: Exception | None) -> None:
        model = pull.request.model_name
        if not pull.followers:
            failure = error or pull.progress.error
            self._log.info(
                log.PULL_ENDED, model=model, error=str(failure) if failure else None
            )


def _note_seen(head: "asyncio.Future[PullHead]") -> None:
    """Take note of a failure that no follower is there to hear of."""
    if not head.cancelled():
        head.exception()


def _without_framing(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    """Return headers for a body whose length may have changed."""
    kept = headers.copy()
    kept.popall("Content-Length", None)
    return kept


def _streamed(body: bytes, request: PullRequest) -> bytes:
    """Return a body that asks for progress, so that others can see it.

    One that is too much to look at is left as it is.
    """
    if request.stream is not False:
        return body
    try:
        members = read_members(body)
    except UnreadBodyError:
        return body
    return msgspec.json.encode(members | {"stream": msgspec.Raw(b"true")})
