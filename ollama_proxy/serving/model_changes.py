"""Relay requests that change an instance's models, and remember the changes."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from multidict import CIMultiDict, CIMultiDictProxy

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.http.compression import encoding_of, without_body_facts
from ollama_proxy.core.ollama.activity import NO_USE, watch
from ollama_proxy.core.ollama.pull_progress import read_progress
from ollama_proxy.core.ollama.routes import BLOBS
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.serving.change_notes import ChangeNotes, is_done, read_change
from ollama_proxy.serving.client_writer import Head
from ollama_proxy.serving.other_instances import OtherInstances
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
_DONE = PullHead(_OK, "OK", CIMultiDictProxy(CIMultiDict({"Content-Length": "0"})))


class ModelChanges:
    """Relays requests that change models, and has the successful ones remembered."""

    def __init__(
        self,
        *,
        pool: Pool,
        relay: UpstreamClient,
        pulls: Pulls,
        notes: ChangeNotes,
        others: OtherInstances,
        changed: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._relay = relay
        self._pulls = pulls
        self._notes = notes
        self._others = others
        self._changed = changed

    async def relay(
        self,
        name: str,
        to_send: PreparedRequest,
        body: bytes,
        lease: Lease,
        response_relay: ResponseRelay[ResponseT],
        asked_by: KeyId | None,
    ) -> ResponseT:
        """Serve one request of the route ``name`` under a lease.

        ``asked_by``: the key of its client, if it has one.
        """
        try:
            if not to_send.body.complete or encoding_of(to_send.headers):
                body = b""  # incomplete, or compressed
            wanted = read_pull(body) if name == "/api/pull" else None
            if wanted is not None:
                return await self._pull(
                    wanted, to_send, body, lease, response_relay, asked_by
                )
            if name == "/api/delete":
                return await self._delete(to_send, body, lease, response_relay)
            if name == "/api/copy":
                done = await self._others.repeat(to_send, lease)
                return await self._pass_on(
                    name, to_send, body, lease, response_relay, done=done
                )
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
        done: bool = False,
    ) -> ResponseT:
        """Relay one request, and remember the change it made.

        ``done``: a pull of the model was stopped for the request, or another instance
        carried it out. So a 404 from Ollama becomes a 200.
        """
        async with await self._relay.ask(
            to_send, lease.upstream, lease.mark_sent
        ) as answer:
            head: Head = answer
            ending = _Ending()
            chunks = ending.watch(answer.chunks())
            if done and answer.status == _NOT_FOUND:
                async for _ in chunks:
                    pass
                head, chunks = _DONE, _once(b"")
            use = watch(name, head, lease)
            response = await response_relay.run(head, chunks, lease.mark_alive, use)
            tail = b"" if encoding_of(answer.headers) else ending.tail
            self._note(name, to_send, body, head.status, tail, lease)
            return response

    def _note(
        self,
        name: str,
        to_send: PreparedRequest,
        body: bytes,
        status: int,
        tail: bytes,
        lease: Lease,
    ) -> None:
        change = read_change(body)
        if name == BLOBS:
            self._notes.uploaded(to_send.target, status, lease.launch_id)
        elif name == "/api/pull" and is_done(status, tail):
            self._pulled(to_send, body, lease, change)
        else:
            is_node = lease.node_id is not None
            self._notes.note(
                name, change, status, tail, lease.launch_id, is_node=is_node
            )

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
        model, done = read_change(body).model_name, False
        if model:
            done = await self._pulls.stop(model, "a request to delete the model")
        if await self._others.repeat(to_send, lease):
            done = True
        return await self._pass_on(
            "/api/delete", to_send, body, lease, response_relay, done=done
        )

    async def _pull(
        self,
        wanted: PullRequest,
        to_send: PreparedRequest,
        body: bytes,
        lease: Lease,
        response_relay: ResponseRelay[ResponseT],
        asked_by: KeyId | None,
    ) -> ResponseT:
        """Follow a pull: the one that is under way, or a new one."""
        own = self._pool.duplicate(lease)
        if own is None:
            raise UpstreamError("the instance is stopping", arrived=False)
        joined = self._pulls.join(
            wanted,
            to_send,
            body,
            own,
            partial(self._pulled, to_send, body, own),
        )
        if joined is None:
            clear = in_the_clear(to_send)
            return await self._attached(wanted, clear, body, lease, response_relay)
        pull, joins = joined
        pull.followers += 1
        pull.wanted_by.add(asked_by)
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
        """Relay the output of a pull, from now on or from its beginning."""
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
            raise UpstreamError("the instance sent no output of the pull", arrived=True)
        head, chunks_once = _whole(pull, head)
        return await response_relay.run(head, chunks_once, lease.mark_alive, use)

    def _pulled(
        self,
        to_send: PreparedRequest,
        body: bytes,
        lease: Lease,
        request: PullRequest,
    ) -> None:
        """Remember a pull that succeeded, and have the other instances pull as well."""
        self._notes.pulled(request)
        self._others.pull(request, to_send, body, lease)
        self._changed()


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
