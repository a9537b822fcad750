"""Run pulls that go on when their client leaves, and that other clients can join.

Ollama cancels a pull when its client leaves. Here each pull has a task of its own:
clients follow its output and may leave. A client that requests a model that is being
pulled joins that pull, and first gets the output so far, one line per layer. At most
`MOST_DETACHED` run this way; a further pull ends with its client, as in Ollama.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import msgspec
import structlog
from multidict import CIMultiDict

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.base.tasks import TaskOwner, start_task
from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.http.compression import CLEAR, encoding_of, without_body_facts
from ollama_proxy.core.ollama.activity import watch
from ollama_proxy.core.ollama.go_json import UnreadBodyError, read_members
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.ollama.pull_progress import ProgressLine
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.serving.pull import EncodedPullError, Pull, PullHead, PullRequest
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.request import PreparedRequest

MOST_DETACHED = 8
"""How many pulls may go on without a client at once: each keeps 4 MiB of its output."""

_LOOK_EVERY_S = 5.0


class BufferedBody:
    """Holds a body that is in memory."""

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


class AttachedPull:
    """Runs a pull that its client waits for, and that ends with it."""

    def __init__(self, request: PullRequest) -> None:
        self.request = request
        self.progress = ProgressLine()
        self.followers = 1
        self.ended_by: str | None = None
        self._scope = asyncio.timeout(None)

    def until_stopped(self) -> asyncio.Timeout:
        """Return a scope that ends in `TimeoutError` once the pull is stopped."""
        return self._scope

    def stop(self, by: str) -> None:
        """End the pull soon, since no client wants it; ``by`` names the cause."""
        self.ended_by = by
        with contextlib.suppress(RuntimeError):  # the scope was left already
            self._scope.reschedule(asyncio.get_running_loop().time())


class Pulls:
    """Keeps the pulls under way, by instance and model; ``most`` of them detached."""

    def __init__(
        self,
        relay: UpstreamClient,
        *,
        clock: Clock,
        stall_s: float,
        most: int = MOST_DETACHED,
    ) -> None:
        self._most = most
        self._attached: set[AttachedPull] = set()
        self._relay = relay
        self._clock = clock
        self._stall_s = stall_s
        self._pulls: dict[tuple[str, str, bool], Pull] = {}
        self._tasks = TaskOwner()
        self._log = structlog.get_logger()

    def under_way(self) -> list[Pull]:
        """Return the detached pulls that have not ended."""
        return list(self._pulls.values())

    async def aclose(self) -> None:
        """End every pull."""
        await self._tasks.aclose()

    def join(
        self,
        request: PullRequest,
        to_send: PreparedRequest,
        body: bytes,
        lease: Lease,
        pulled: Callable[[PullRequest], None],
        *,
        is_extra: bool = False,
    ) -> tuple[Pull, bool] | None:
        """Return the pull of a model, begun now if necessary, and whether it existed.

        None if the limit of detached pulls is reached. ``lease``: held by a new pull,
        released if none begins. ``pulled``: called if the pull succeeds. ``is_extra``:
        the limit is no concern, since its caller has one.
        """
        model = full_model_name(request.model_name)
        key = (lease.launch_id, model, request.insecure)
        if (pull := self._pulls.get(key)) is not None:
            if not lease.yields:
                pull.keep()
            lease.release()
            return pull, True
        if len(self._pulls) >= self._most and not is_extra:
            lease.release()
            return None
        pull = self._pulls[key] = Pull(request, lease.cut, keep=lease.keep)
        sent_body = _streamed(body, request)
        sent = PreparedRequest(
            to_send.method,
            to_send.target,
            _own_headers(to_send.headers, is_same=sent_body == body),
            BufferedBody(sent_body),
        )
        running = self._run(key, pull, sent, lease, pulled)
        self._tasks.spawn(running, name=f"pull {model}")
        return pull, False

    @contextlib.contextmanager
    def attached(self, request: PullRequest) -> Iterator[AttachedPull]:
        """Have a pull that its client waits for among those that can be stopped."""
        pull = AttachedPull(request)
        self._attached.add(pull)
        try:
            yield pull
        finally:
            self._attached.discard(pull)

    def of(self, model: str) -> list[Pull | AttachedPull]:
        """Return the pulls of a model, on whatever instance."""
        name = full_model_name(model)
        pulls: list[Pull | AttachedPull] = [*self._pulls.values(), *self._attached]
        return [p for p in pulls if full_model_name(p.request.model_name) == name]

    def disown(self, key_id: KeyId, by: str) -> None:
        """Stop the detached pulls that only a key has asked for; others go on."""
        for pull in self.under_way():
            if key_id in pull.wanted_by:
                pull.wanted_by.discard(key_id)
                if not pull.wanted_by:
                    pull.stop(by)

    async def stop(self, model: str, by: str) -> bool:
        """Stop the pulls of a model; True if there was any.

        Pulls without a client have ended when this returns. ``by``: the cause, in words
        for the followers.
        """
        stopped = self.of(model)
        for pull in stopped:
            pull.stop(by)
        for pull in stopped:
            if isinstance(pull, Pull):
                with contextlib.suppress(InstanceLostError):
                    await pull.outcome()
        return bool(stopped)

    async def _run(
        self,
        key: tuple[str, str, bool],
        pull: Pull,
        to_send: PreparedRequest,
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

    async def _take(self, pull: Pull, to_send: PreparedRequest, lease: Lease) -> None:
        """Read the answer to its end, or until it stalls without a follower."""
        limit = asyncio.timeout(None)
        watcher = start_task(self._watch(pull, limit), name="pull watch")
        try:
            async with limit, await self._relay.ask(to_send, lease.upstream) as answer:
                if encoding := encoding_of(answer.headers):
                    raise EncodedPullError(encoding)
                head = PullHead(answer.status, answer.reason, answer.headers)
                pull.head.set_result(head)
                use = watch("/api/pull", head, lease)
                async for data in answer.chunks():
                    lease.mark_alive()
                    use.take(data)
                    pull.say(data)
                use.end(is_whole=True)
        except TimeoutError as error:
            stuck = "no client waits for it, and it makes no progress"
            raise UpstreamError(stuck, arrived=True) from error
        finally:
            watcher.cancel()

    async def _watch(self, pull: Pull, limit: asyncio.Timeout) -> None:
        """End a pull that has no follower and gets no further."""
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
            failure = pull.progress.error or error
            self._log.info(
                log.PULL_ENDED, model=model, error=str(failure) if failure else None
            )


def _own_headers(headers: CIMultiDict[str], *, is_same: bool) -> CIMultiDict[str]:
    """Return the headers of a pull that the proxy requests on its own behalf.

    Its output is read and sent to clients with different Accept-Encoding headers, so it
    must not be compressed. Unless the body ``is_same`` as the client's, headers that
    describe the client's body are left out.
    """
    kept = CIMultiDict(headers) if is_same else without_body_facts(headers)
    kept.popall("Content-Length", None)
    kept.update(CLEAR)
    return kept


def _streamed(body: bytes, request: PullRequest) -> bytes:
    """Return a body that asks for progress, so that other clients can follow it.

    A body that can't be parsed is left as it is.
    """
    if request.stream is not False:
        return body
    try:
        members = read_members(body)
    except UnreadBodyError:
        return body
    return msgspec.json.encode(members | {"stream": msgspec.Raw(b"true")})
