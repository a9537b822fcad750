"""Relay requests that change an instance's models, and remember the changes."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

from multidict import CIMultiDict, CIMultiDictProxy

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.http.compression import encoding_of, without_body_facts
from ollama_proxy.core.ollama.activity import NO_USE, watch
from ollama_proxy.core.ollama.loose_json import read_loosely
from ollama_proxy.core.ollama.pull_progress import read_progress
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.restored_models import RestoredModels
from ollama_proxy.serving.client_writer import Head
from ollama_proxy.serving.pull import (
    EncodedPullError,
    Pull,
    PullHead,
    PullRequest,
    ended_line,
    failed_head,
    read_pull,
)
from ollama_proxy.serving.response_relay import ResponseRelay, ResponseT
from ollama_proxy.serving.shared_pulls import Pulls
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.request import PreparedRequest, in_the_clear

_OK = 200
_NOT_FOUND = 404
_TAIL_BYTES = 4096
_DELETED = PullHead(_OK, "OK", CIMultiDictProxy(CIMultiDict({"Content-Length": "0"})))


class _Change(PullRequest, frozen=True):
    """Holds the names in the body of any request that changes models."""

    source: str = ""
    destination: str = ""


class ModelChanges:
    """Relays requests that change models, and remembers the successful ones.

    ``sticky``: None if nothing is remembered.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        relay: UpstreamClient,
        pulls: Pulls,
        sticky: RestoredModels | None,
        changed: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._relay = relay
        self._pulls = pulls
        self._sticky = sticky
        self._changed = changed

    async def relay(
        self,
        name: str,
        to_send: PreparedRequest,
        body: bytes,
        lease: Lease,
        response_relay: ResponseRelay[ResponseT],
    ) -> ResponseT:
        """Serve one request of the route ``name`` under a lease."""
        try:
            if not to_send.body.complete or encoding_of(to_send.headers):
                body = b""  # incomplete, or compressed
            wanted = read_pull(body) if name == "/api/pull" else None
            if wanted is not None:
                return await self._pull(wanted, to_send, body, lease, response_relay)
            if name == "/api/delete":
                return await self._delete(to_send, body, lease, response_relay)
            if name == "/api/create":
                to_send = in_the_clear(to_send)
            return await self._pass_on(name, to_send, body, lease, response_relay)
        finally:
            self._changed()

    async def _pass_on(
        self,
        name: str,
        to_send: PreparedRequest,
        body: bytes,
        lease: Lease,
        response_relay: ResponseRelay[ResponseT],
        *,
        stopped: bool = False,
    ) -> ResponseT:
        """Relay one request, and remember the change it made.

        ``stopped``: a pull of this model was stopped for the request. So a 404 from
        Ollama, which does not know a half-pulled model, becomes a 200.
        """
        async with await self._relay.ask(to_send, lease.upstream) as answer:
            head: Head = answer
            ending = _Ending()
            chunks = ending.watch(answer.chunks())
            if stopped and answer.status == _NOT_FOUND:
                async for _ in chunks:
                    pass
                head, chunks = _DELETED, _once(b"")
            use = watch(name, head, lease)
            response = await response_relay.run(head, chunks, lease.mark_alive, use)
            tail = b"" if encoding_of(answer.headers) else ending.tail
            self._note(name, body, head.status, tail)
            return response

    async def _delete(
        self,
        to_send: PreparedRequest,
        body: bytes,
        lease: Lease,
        response_relay: ResponseRelay[ResponseT],
    ) -> ResponseT:
        """Delete a model; if it is being pulled, stop the pull first.

        Ollama does not know a half-pulled model, so its 404 would hide that the request
        did something.
        """
        change = read_loosely(body, _Change)
        stopped = False
        if change is not None and change.model_name:
            by = "a request to delete the model"
            stopped = await self._pulls.stop(change.model_name, by)
        return await self._pass_on(
            "/api/delete", to_send, body, lease, response_relay, stopped=stopped
        )

    async def _pull(
        self,
        wanted: PullRequest,
        to_send: PreparedRequest,
        body: bytes,
        lease: Lease,
        response_relay: ResponseRelay[ResponseT],
    ) -> ResponseT:
        """Follow a pull: the one that is under way, or a new one."""
        own = self._pool.duplicate(lease)
        if own is None:
            raise UpstreamError("the instance is stopping", arrived=False)
        joined = self._pulls.join(wanted, to_send, body, own, self._pulled)
        if joined is None:
            clear = in_the_clear(to_send)
            return await self._attached(wanted, clear, body, lease, response_relay)
        pull, joins = joined
        pull.followers += 1
        try:
            return await self._follow(pull, wanted, lease, response_relay, joins=joins)
        except EncodedPullError:  # can't be shared: relay it unchanged to this client
            return await self._attached(wanted, to_send, body, lease, response_relay)
        finally:
            pull.followers -= 1

    async def _attached(
        self,
        wanted: PullRequest,
        to_send: PreparedRequest,
        body: bytes,
        lease: Lease,
        response_relay: ResponseRelay[ResponseT],
    ) -> ResponseT:
        """Relay a pull that ends with its client, or when it is stopped."""
        with self._pulls.attached(wanted) as pull:
            try:
                async with pull.until_stopped():
                    return await self._pass_on(
                        "/api/pull", to_send, body, lease, response_relay
                    )
            except TimeoutError as error:
                if pull.ended_by is None:
                    raise
                line = ended_line(wanted, pull.ended_by)
                if response_relay.response is None:
                    head = failed_head(len(line))
                    return await response_relay.run(
                        head, _once(line), lease.mark_alive, NO_USE
                    )
                told = read_progress(line).error or ""
                return await response_relay.end_early(told, error)

    async def _follow(
        self,
        pull: Pull,
        wanted: PullRequest,
        lease: Lease,
        response_relay: ResponseRelay[ResponseT],
        *,
        joins: bool,
    ) -> ResponseT:
        """Hand on what a pull says, from now on or as a whole."""
        head = await pull.answered()
        joins = joins and "Content-Length" not in head.headers
        streams = wanted.stream is not False or head.status != _OK
        if joins:
            told = CIMultiDictProxy(without_body_facts(head.headers))
            head = replace(head, headers=told)
        use = watch("/api/pull", head, lease)
        if streams:
            async with aclosing(pull.follow(joins=joins)) as chunks:
                return await response_relay.run(head, chunks, lease.mark_alive, use)
        try:
            await pull.outcome()
        except InstanceLostError as error:
            raise UpstreamError(str(error), arrived=True) from error
        if not pull.last:
            raise UpstreamError("the instance said nothing of the pull", arrived=True)
        head, chunks_once = _whole(pull, head)
        return await response_relay.run(head, chunks_once, lease.mark_alive, use)

    def _pulled(self, request: PullRequest) -> None:
        """Remember a pull that succeeded."""
        if self._sticky is not None:
            self._sticky.pulled(request.model_name, insecure=request.insecure)
        self._changed()

    def _note(self, name: str, body: bytes, status: int, tail: bytes) -> None:
        """Remember what a request did, as far as its answer says that it did."""
        if self._sticky is None:
            return
        change = read_loosely(body, _Change)
        if change is None:
            return
        done = status == _OK and read_progress(tail).status == "success"
        match name:
            case "/api/pull" if done:
                self._sticky.pulled(change.model_name, insecure=change.insecure)
            case "/api/create" if done:
                self._sticky.created(change.model_name)
            case "/api/copy" if status == _OK:
                self._sticky.copied(change.source, change.destination)
            case "/api/delete" if status == _OK:
                self._sticky.deleted(change.model_name)
            case "/api/delete" if status == _NOT_FOUND:
                self._sticky.missed(change.model_name)


class _Ending:
    """Keeps the last line of an answer that passes by."""

    def __init__(self) -> None:
        self._kept = b""

    @property
    def tail(self) -> bytes:
        """Return the last line."""
        return self._kept.rstrip(b"\n").rpartition(b"\n")[2]

    async def watch(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for data in chunks:
            self._kept = (self._kept + data)[-_TAIL_BYTES:]
            yield data


def _whole(pull: Pull, head: PullHead) -> tuple[PullHead, AsyncIterator[bytes]]:
    """Return the response for a client that wants no progress: the last line.

    As Ollama does (``waitForStream`` in ``server/routes.go``): 200, or 500 with an
    error, and a content type without charset.
    """
    failed = pull.progress.error is not None
    fields = without_body_facts(head.headers)
    fields["Content-Type"] = "application/json"
    fields["Content-Length"] = str(len(pull.last))
    reason = "Internal Server Error" if failed else head.reason
    whole = PullHead(500 if failed else _OK, reason, CIMultiDictProxy(fields))
    return whole, _once(pull.last)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
