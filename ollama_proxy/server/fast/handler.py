"""Serve plain requests straight from their connection: answered at once, or relayed.

Everything is decided by the same parts as behind, and nothing else is done: what
has to wait for an instance, changes models or is out of the ordinary is left to the
server behind.
"""

import asyncio
from functools import partial
from typing import NamedTuple

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import UpstreamError
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.routes import ColdAnswer, Family, Kind, Route, classify
from ollama_proxy.fleet.pool import Lease
from ollama_proxy.server.access import AccessControl, AccessFacts
from ollama_proxy.server.fast import response as client_response
from ollama_proxy.server.fast.connection import ClientConnection
from ollama_proxy.server.fast.parser import PlainRequest
from ollama_proxy.server.fast.response import ClientResponse
from ollama_proxy.serving.relay import (
    Services,
    ignore_activity,
    read_limit_s,
    relay_request,
    run_under_lease,
)
from ollama_proxy.serving.request_context import RequestContext, draw_request_id
from ollama_proxy.serving.request_log import failure, note
from ollama_proxy.serving.response_relay import ResponseRelay
from ollama_proxy.serving.short_circuit import RefusedError

_KINDS = frozenset({Kind.INFERENCE, Kind.READ, Kind.SYSTEM})


class Encoded(NamedTuple):
    """An answer of our own, as bytes."""

    status: int
    data: bytes


class FastPath:
    """Serves plain requests that ``access`` lets pass."""

    def __init__(
        self, services: Services, *, access: AccessControl, clock: Clock
    ) -> None:
        self._services = services
        self._access = access
        self._clock = clock

    def take(self, client: ClientConnection, request: PlainRequest) -> bool:
        """Serve a request, or see to it; False if the server behind is to."""
        route = classify(request.method, request.path)
        refusal = self._access.check(
            AccessFacts(
                client.peer,
                request.method,
                request.path,
                route.kind,
                request.host,
                "",  # one with an Origin is no plain request
                request,
            )
        )
        if refusal is not None:
            return self._refuse(client, request, route, refusal)
        if request.marks and self._services.mark.objection(request.marks) is not None:
            return False
        if not _is_simple(route):
            return False
        context = RequestContext(draw_request_id(), route, request.path, request.agent)
        if route.asleep is ColdAnswer.ROOT or not self._services.pool.is_ready:
            return self._answer(client, request, context)
        return request.method != "HEAD" and self._begin(client, request, context)

    def _refuse(
        self,
        client: ClientConnection,
        request: PlainRequest,
        route: Route,
        refusal: Reply,
    ) -> bool:
        """Send a refusal of the access control, and log and count it."""
        context = RequestContext(draw_request_id(), route, request.path, request.agent)
        begun_at = asyncio.get_running_loop().time()
        encoded = self._encoded(request, refusal)
        return self._send(client, request, context, encoded, begun_at)

    def _answer(
        self, client: ClientConnection, request: PlainRequest, context: RequestContext
    ) -> bool:
        """Answer at once, if that is all there is to do."""
        begun_at = asyncio.get_running_loop().time()
        try:
            reply = self._reply(request, context)
        except Exception as error:
            failed = failure(client, context, error, has_begun=False)
            reply = self._encoded(request, failed)
        if reply is None:
            return False
        return self._send(client, request, context, reply, begun_at)

    def _send(
        self,
        client: ClientConnection,
        request: PlainRequest,
        context: RequestContext,
        reply: Encoded,
        begun_at: float,
    ) -> bool:
        """Send a whole answer of our own, and log and count the request."""
        status = reply.status
        try:
            client.send(reply.data)
        except ConnectionError:
            context.abandon()
            status = 0
        self._note(request, context, status, begun_at)
        return True

    def _reply(self, request: PlainRequest, context: RequestContext) -> Encoded | None:
        """Return an answer without an instance; None if there is more to do."""
        try:
            if context.route.counts_as_use:
                return self._refusal(request, context)
            return self._encoded(request, self._asleep(request, context))
        except RefusedError as refused:
            return self._encoded(request, refused.reply)

    def _encoded(self, request: PlainRequest, reply: Reply) -> Encoded:
        date = self._clock.wall()
        data = client_response.encoded(reply, request.method, date)
        return Encoded(reply.status, data)

    def _asleep(self, request: PlainRequest, context: RequestContext) -> Reply:
        """Answer what only reads, from memory."""
        context.outcome = "asleep"
        fields = None
        if context.route.asleep is ColdAnswer.SHOW:
            fields = self._services.spared.fields(context, request.body)
        return self._services.answers.answer(
            context.route, request.method, request.target, fields, request.agent
        )

    def _refusal(
        self, request: PlainRequest, context: RequestContext
    ) -> Encoded | None:
        """Wake an instance, and say that there is none yet; None if it may wait."""
        if self._services.hold.hold_s > 0:
            return None
        fields = self._services.spared.fields(context, request.body)
        if (answer := self._services.spared.answer(context, fields)) is not None:
            return self._encoded(request, answer)
        if fields is not None:
            context.note_wanted(fields)
        pool, load, joins = self._services.pool, context.load, context.joins
        if pool.request_instance(context.model, wait_s=0.0, load=load, joins=joins) > 0:
            return None
        self._services.metrics.wait.observe(0.0)
        return self._unserved(context, None)

    def _unserved(self, context: RequestContext, problem: str | None) -> Encoded:
        context.outcome = "provisioning"
        family, date = context.route.family, int(self._clock.wall())
        told_id = context.request_id if family is Family.ANTHROPIC else ""
        waiting = self._services.status.waiting(problem)
        return Encoded(
            503,
            client_response.encode_provisioning_reply(family, waiting, told_id, date),
        )

    def _begin(
        self, client: ClientConnection, request: PlainRequest, context: RequestContext
    ) -> bool:
        """Begin to relay a request to the instance that is ready."""
        uses = context.route.counts_as_use
        try:
            if uses and self._services.spared.wants_none(context, request.body):
                return False
        except Exception:  # a refusal or a fault of ours: told behind
            return False
        serve = partial(self._relayed, client, request, context)
        client.run(serve, is_read=not uses)
        return True

    async def _relayed(
        self, client: ClientConnection, request: PlainRequest, context: RequestContext
    ) -> None:
        """Relay a request to its end, or leave it to the server behind."""
        begun_at, size = asyncio.get_running_loop().time(), len(request.body.head)
        is_served = False
        if self._services.budget.take(size):
            try:
                is_served = await self._serve(client, request, context)
            finally:
                self._services.budget.give_back(size)
        if not is_served and not client.hand_over():
            context.abandon()
            self._note(request, context, 0, begun_at)

    async def _serve(
        self, client: ClientConnection, request: PlainRequest, context: RequestContext
    ) -> bool:
        """Serve a request under a lease; False if the server behind is to."""
        begun_at, lease = asyncio.get_running_loop().time(), self._lease(context)
        if lease is None:
            return False
        status: int | None = 0
        try:
            status = await self._relay_or_tell(client, request, context, lease)
        except (asyncio.CancelledError, ConnectionError):
            context.abandon()
            raise
        finally:
            lease.release()
            if status is not None:
                self._note(request, context, status, begun_at)
        return status is not None

    def _lease(self, context: RequestContext) -> Lease | None:
        pool = self._services.pool
        return pool.try_lease() if context.route.counts_as_use else pool.observe()

    async def _relay_or_tell(
        self,
        client: ClientConnection,
        request: PlainRequest,
        context: RequestContext,
        lease: Lease,
    ) -> int | None:
        """Return the status that was told; None if the server behind is to serve."""
        response_relay: ResponseRelay[ClientResponse] = ResponseRelay(
            client,
            context.route.family,
            opening=partial(client_response.begin, client, self._clock.wall()),
            begun=None,
            stall_s=self._services.stall_s,
            added={},
            request_id=context.request_id,
        )
        try:
            answer = await self._pass_on(request, context, lease, response_relay)
        except ConnectionError:
            raise
        except Exception as error:
            has_begun = response_relay.response is not None
            failed = failure(client, context, error, has_begun=has_begun)
            answer = self._encoded(request, failed)
        if isinstance(answer, Encoded):
            client.send(answer.data)
        return answer.status if answer is not None else None

    async def _pass_on(
        self,
        request: PlainRequest,
        context: RequestContext,
        lease: Lease,
        response_relay: ResponseRelay[ClientResponse],
    ) -> ClientResponse | Encoded | None:
        """Return the instance's answer, handed over, or one to be sent in its place.

        None if the request can be sent again, which is done behind.
        """
        uses = context.route.counts_as_use
        touch = lease.touch if uses else ignore_activity
        serving = relay_request(
            self._services, request, request.body, lease, response_relay, context, touch
        )
        limit_s = None if uses else read_limit_s(context.route)
        try:
            return await run_under_lease(
                lease, response_relay, serving, limit_s=limit_s
            )
        except UpstreamError as error:
            return self._instead(request, context, lease, error)

    def _instead(
        self,
        request: PlainRequest,
        context: RequestContext,
        lease: Lease,
        error: UpstreamError,
    ) -> Encoded | None:
        """Return an answer in place of one that did not come, if there is to be one."""
        lease.check_now()
        if not context.route.counts_as_use:
            return self._reply(request, context)
        return self._unserved(context, str(error)) if error.arrived else None

    def _note(
        self,
        request: PlainRequest,
        context: RequestContext,
        status: int,
        begun_at: float,
    ) -> None:
        took_s = asyncio.get_running_loop().time() - begun_at
        note(self._services.metrics, request.method, context, status, took_s)


def _is_simple(route: Route) -> bool:
    """Tell whether a route's requests may be served without more ado."""
    return route.kind in _KINDS and (route.takes_json or not route.counts_as_use)
