"""Carry out the decision on a plain request, directly on its connection.

A request that waits for an instance, changes models or is unusual is left to aiohttp's
server, which decides by the same rules.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import UpstreamError
from ollama_proxy.core.access.facts import AccessFacts
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.core.dispatch import decide
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.hub_routes import HEARTBEAT
from ollama_proxy.core.ollama.routes import Kind, Route, classify
from ollama_proxy.core.plans import (
    Admit,
    Choose,
    Deny,
    Observe,
    Plan,
    Relay,
    Unavailable,
    Wait,
)
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.server.access import AccessControl
from ollama_proxy.server.fast import response as client_response
from ollama_proxy.server.fast.connection import ClientConnection
from ollama_proxy.server.fast.own_answers import Encoded, OwnAnswers
from ollama_proxy.server.fast.parser import PlainRequest
from ollama_proxy.server.fast.response import ClientResponse
from ollama_proxy.serving.interruptions import interruption_reply, take_interruption
from ollama_proxy.serving.key_settling import settle
from ollama_proxy.serving.node_relay import relay_request
from ollama_proxy.serving.permits import admit, undo
from ollama_proxy.serving.relay import Services
from ollama_proxy.serving.request_context import RequestContext, Stage, draw_request_id
from ollama_proxy.serving.request_log import failure, note
from ollama_proxy.serving.response_relay import ResponseRelay

if TYPE_CHECKING:
    from ollama_proxy.server.fast.beats import FastBeats

_KINDS = frozenset({Kind.INFERENCE, Kind.READ, Kind.SYSTEM})
# Not `Choose | Admit` where they are asked for: each request would make that anew.
_DECIDED_AGAIN: Final = (Choose, Admit)
_RELAYED: Final = (Relay, Observe)


class FastPath:
    """Serves plain requests that ``access`` lets pass; ``beats`` takes nodes' beats."""

    def __init__(
        self,
        services: Services,
        *,
        access: AccessControl,
        clock: Clock,
        beats: "FastBeats | None" = None,
    ) -> None:
        self._beats = beats
        self._services = services
        self._access = access
        self._clock = clock
        self._answers = OwnAnswers(clock)

    def take(self, client: ClientConnection, request: PlainRequest) -> bool:
        """Answer a request or begin to relay it; False leaves it to aiohttp."""
        path = request.path
        if client.is_hub and path == "/":
            return False  # the page, which is made behind
        pools = self._services.pools
        route = pools.resolve(classify(request.method, path), request.method, path)
        facts = AccessFacts(
            self._access.client_address(client.peer, request),
            request.method,
            path,
            route,
            request.host,
            "",  # a request with an Origin is not plain
            request,
            request.sent,
        )
        told = self._access.check(facts)
        if not isinstance(told, Reply) and not _is_simple(route):
            if self._beats is None or route.name != HEARTBEAT:
                return False
            return self._beats.take(client, request)
        context = RequestContext(
            request.method,
            path,
            request.agent,
            route,
            request.body,
            request_id=draw_request_id(),
            target=request.target,
            served=pools.first,
            is_routed=pools.leave_no_choice,
            caller=Caller(facts.peer) if isinstance(told, Reply) else told,
        )
        if isinstance(told, Reply):
            return self._send(client, context, self._answers.encoded(context, told))
        context.identify(told)
        context.may_wait_s = pools.first.hold.held_s(told)
        if request.sent:
            hides = told.key is not None or self._access.hides_credentials
            request.drop_credentials(hides=hides)
        if request.marks:
            context.objection = self._services.mark.objection(request.marks)
        is_taken = False
        try:
            is_taken = self._carry_out(client, request, context)
        finally:
            if not is_taken:
                undo(context)
        return is_taken

    def _carry_out(
        self, client: ClientConnection, request: PlainRequest, context: RequestContext
    ) -> bool:
        """Answer at once, or begin to relay; False if there is more to do."""
        begun_at = asyncio.get_running_loop().time()
        try:
            plan = self._decide(context)
            if isinstance(plan, _RELAYED):
                return self._begin(client, request, context, plan)
            if _is_brief(plan, context):
                context.served.admit(context, plan)
                left_s = context.served.pool.try_request_instance(
                    context.model, wait_s=0.0, load=context.load, joins=plan.joins
                )
                if left_s is None:
                    self._run(client, context, partial(self._wake, client, context))
                    return True
                answer = self._unserved(context, left_s)
            else:
                answer = self._answers.answer(context, plan)
        except Exception as error:
            failed = failure(client, context, error, has_begun=False)
            answer = self._answers.encoded(context, failed)
        return answer is not None and self._send(client, context, answer, begun_at)

    def _decide(self, context: RequestContext) -> Plan:
        """Return the plan for a request, in its pool if that is known already."""
        plan = decide(context, context.served.fleet)
        while isinstance(plan, _DECIDED_AGAIN):
            if isinstance(plan, Choose):
                context.choose(plan, self._services.pools[plan.pool])
                context.may_wait_s = context.served.hold.held_s(context.caller)
            else:
                now = self._clock.now()
                refused = admit(self._services.limits, context, plan, now)
                if refused is not None:
                    return Deny(refused)
            plan = decide(context, context.served.fleet)
        return plan

    def _run(
        self,
        client: ClientConnection,
        context: RequestContext,
        serve: Callable[[], Coroutine[Any, Any, None]],
        *,
        is_read: bool = False,
    ) -> None:
        """Serve a request in a task, which may never begin; its permit ends then."""
        unbegun = None
        if context.permit is not None:
            unbegun = partial(settle, self._services.usage, context)
        client.run(serve, is_read=is_read, unbegun=unbegun)

    async def _wake(self, client: ClientConnection, context: RequestContext) -> None:
        """Begin a launch, and answer once it is durable."""
        begun_at = asyncio.get_running_loop().time()
        context.stage = Stage.WAITING
        self._services.active.begin(context, begun_at, client.task)
        try:
            left_s = await context.served.pool.request_instance(
                context.model, wait_s=0.0, load=context.load
            )
            answer = self._unserved(context, left_s)
        except asyncio.CancelledError:
            if not take_interruption(context):
                context.abandon()
                self._note(context, 0, begun_at)
                raise
            answer = self._answers.encoded(context, interruption_reply(context))
        except Exception as error:
            failed = failure(client, context, error, has_begun=False)
            answer = self._answers.encoded(context, failed)
        finally:
            self._services.active.end(context)
        if answer is not None:
            self._send(client, context, answer, begun_at)
        elif not self._hand_over(client, context):
            self._note(context, 0, begun_at)

    def _hand_over(self, client: ClientConnection, context: RequestContext) -> bool:
        """Leave a request to aiohttp's server; False if its client has left."""
        undo(context)
        if client.hand_over(context.tried_on):
            return True
        context.abandon()
        return False

    def _unserved(self, context: RequestContext, left_s: float) -> Encoded | None:
        """Return the 503 of a request that may not wait for the launch.

        None if it waits ``left_s`` seconds all the same: the server is managed by
        somebody else and will be connected in a moment.
        """
        if left_s > 0:
            return None
        self._services.metrics.wait.observe(context.wait_s)
        context.served.note_retry(context)
        return self._answers.unavailable(context, Unavailable(context.problem))

    def _send(
        self,
        client: ClientConnection,
        context: RequestContext,
        answer: Encoded,
        begun_at: float | None = None,
    ) -> bool:
        """Send a whole answer of our own, and log and count the request."""
        status = answer.status
        try:
            client.send(answer.data)
        except ConnectionError:
            context.abandon()
            status = 0
        self._note(context, status, begun_at)
        return True

    def _begin(
        self,
        client: ClientConnection,
        request: PlainRequest,
        context: RequestContext,
        plan: Relay | Observe,
    ) -> bool:
        """Begin to relay a request to the ready instance.

        Returns False for HEAD, and for inference that does not count as use: both are
        rare, and left to aiohttp.
        """
        observes = isinstance(plan, Observe)
        if observes and (context.route.counts_as_use or request.method == "HEAD"):
            return False
        serve = partial(self._relay, client, request, context, plan)
        self._run(client, context, serve, is_read=observes)
        return True

    async def _relay(
        self,
        client: ClientConnection,
        request: PlainRequest,
        context: RequestContext,
        plan: Relay | Observe,
    ) -> None:
        """Relay a request to its end, or leave it to the server behind."""
        begun_at, size = asyncio.get_running_loop().time(), len(request.body.head)
        budget, active, status = self._services.budget, self._services.active, None
        if budget.take(size):
            lease = context.served.lease(context, plan)
            context.stage = Stage.SERVED
            active.begin(context, begun_at, client.task)
            try:
                if lease is not None:
                    status = await self._relay_under(
                        client, request, context, plan, lease
                    )
            except (asyncio.CancelledError, ConnectionError):
                context.abandon()
                self._note(context, 0, begun_at)
                raise
            finally:
                active.end(context)
                budget.give_back(size)
                if lease is not None:
                    lease.release()
                if status is None:
                    undo(context)
        if status is None and not self._hand_over(client, context):
            status = 0
        if status is not None:
            self._note(context, status, begun_at)

    async def _relay_under(
        self,
        client: ClientConnection,
        request: PlainRequest,
        context: RequestContext,
        plan: Relay | Observe,
        lease: Lease,
    ) -> int | None:
        """Return the status that was sent; None to leave the request to aiohttp."""
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
            try:
                response = await relay_request(
                    self._services, request, lease, response_relay, context, plan
                )
            except UpstreamError as error:
                lease.check_now()
                answer = self._instead(context, error)
            else:
                return response.status
        except ConnectionError:
            raise
        except asyncio.CancelledError:
            if response_relay.response is not None or not take_interruption(context):
                raise
            answer = self._answers.encoded(context, interruption_reply(context))
        except Exception as error:
            has_begun = response_relay.response is not None
            failed = failure(client, context, error, has_begun=has_begun)
            answer = self._answers.encoded(context, failed)
        if answer is None:
            return None
        client.send(answer.data)
        return answer.status

    def _instead(self, context: RequestContext, error: UpstreamError) -> Encoded | None:
        """Return an answer in place of an instance's; None if it may be sent again."""
        context.note_failure(str(error), may_be_done=error.arrived)
        may_go_on = not context.tried_on or context.may_wait_s > 0
        if context.route.counts_as_use and not error.arrived and may_go_on:
            context.served.note_retry(context)
            return None  # aiohttp's server sends it again
        return self._answers.answer(context, decide(context, context.served.fleet))

    def _note(
        self, context: RequestContext, status: int, begun_at: float | None
    ) -> None:
        settle(self._services.usage, context)
        now = asyncio.get_running_loop().time()
        took_s = now - begun_at if begun_at is not None else 0.0
        note(self._services.metrics, context, status, took_s)


def _is_brief(plan: Plan, context: RequestContext) -> TypeGuard[Wait]:
    """Tell whether a request only asks for an instance, and does not wait for it."""
    if not isinstance(plan, Wait) or context.may_wait_s > 0:
        return False
    return not context.served.pool.is_ready  # else it waits for a slot


def _is_simple(route: Route) -> bool:
    """Tell whether a route's requests may be served without more ado."""
    is_taken = route.takes_json or not route.counts_as_use
    return is_taken and route.kind in _KINDS and not route.is_job
