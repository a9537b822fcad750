"""Carry out the decision on a request for Ollama, through aiohttp."""

import asyncio
from functools import partial

from aiohttp import web

from ollama_proxy.base.errors import HoldLimitError, StoreError, UpstreamError
from ollama_proxy.core.dispatch import decide
from ollama_proxy.core.failover import asks_for_retry
from ollama_proxy.core.http.headers import POOL_HEADER, RETRY_HEADER
from ollama_proxy.core.ollama.request_fields import wants_stream
from ollama_proxy.core.ollama.routes import Kind
from ollama_proxy.core.plans import (
    Admit,
    Choose,
    Deny,
    Gather,
    Observe,
    Read,
    Reading,
    Refuse,
    Relay,
    Say,
    Seek,
    Unavailable,
    Wait,
)
from ollama_proxy.core.pool_choice import SOUGHT_BYTES, is_seen
from ollama_proxy.core.waiting_order import turn_of
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.server.aiohttp.hold import Hold
from ollama_proxy.server.aiohttp.reply import to_response
from ollama_proxy.server.aiohttp.request import REQUEST_CONTEXT, outgoing
from ollama_proxy.server.aiohttp.request_body import RequestBody
from ollama_proxy.server.aiohttp.response import begin_response
from ollama_proxy.serving.interruptions import take_interruption
from ollama_proxy.serving.node_relay import relay_change, relay_request, run_on_node
from ollama_proxy.serving.permits import admit
from ollama_proxy.serving.relay import Services, run_under_lease
from ollama_proxy.serving.request_context import RequestContext, Stage
from ollama_proxy.serving.response_relay import ResponseRelay
from ollama_proxy.upstream.loop_mark import VIA
from ollama_proxy.upstream.request import PreparedRequest, in_the_clear

_RETRY_PAUSE_S = 0.25


class OllamaHandler:
    """Handles every request that is not for the proxy itself."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, or hand it to an instance."""
        services, context = self._services, request[REQUEST_CONTEXT]
        body = self._prepare(request, context)
        hold: Hold | None = None
        response: web.StreamResponse | None = None
        try:
            while response is None:
                plan = decide(context, context.served.fleet)
                match plan:
                    case Relay() | Observe():
                        context.tried = True
                        lease = context.served.lease(context, plan)
                        if lease is not None:
                            response = await self._relay(
                                request, context, body, lease, plan, None
                            )
                    case Choose() | Seek() | Read():
                        await self._find_out(request, context, body, plan)
                    case Admit():
                        response = self._admit(context, plan)
                    case Gather():
                        response = to_response(
                            await services.lists.reply(context, plan)
                        )
                    case Wait():
                        hold = hold or self._hold(request, context, plan)
                        response = await self._wait(request, context, body, hold, plan)
                    case _ if hold is not None and hold.response is not None:
                        response = await self._end_held(context, plan, hold)
                    case _:
                        reply = context.served.replies.reply(context, plan)
                        if hold is not None and hold.applied is not None:
                            reply = reply.with_headers(*hold.confirmation.items())
                        response = to_response(reply)
            if body.expects:
                await _end_uninvited(request, response)
            return response
        finally:
            body.close()

    def _prepare(self, request: web.Request, context: RequestContext) -> RequestBody:
        """Take in the head of a request; return its body, which may not be here yet."""
        services = self._services
        context.is_routed = services.pools.leave_no_choice
        context.named_pool = request.headers.get(POOL_HEADER, "")
        context.may_repeat = asks_for_retry(request.headers.get(RETRY_HEADER, ""))
        marks = request.headers.getall(VIA, ())
        context.objection = services.mark.objection(marks)
        context.may_wait_s = _granted_s(request, context)
        body = RequestBody(request, services.budget, stall_s=services.stall_s)
        context.body = body
        if context.key is not None:
            context.query = context.target.partition("?")[2]
            context.content_type = request.headers.get("Content-Type", "")
        return body

    def _admit(self, context: RequestContext, plan: Admit) -> web.Response | None:
        """Have its key admit a request; return the refusal, if it does not."""
        services = self._services
        refused = admit(services.limits, context, plan, services.clock.now())
        if refused is None:
            return None
        return to_response(context.served.replies.reply(context, Deny(refused)))

    def _hold(self, request: web.Request, context: RequestContext, plan: Wait) -> Hold:
        """Begin a wait, which may be one of no time at all."""
        context.served.admit(context, plan)
        streams = wants_stream(context.route, plan.fields)
        family, policy = context.route.family, context.served.hold
        wait_s, turn = context.may_wait_s, turn_of(context.caller)
        return Hold(request, family, policy, wait_s, turn, streams=streams)

    async def _wait(
        self,
        request: web.Request,
        context: RequestContext,
        body: RequestBody,
        hold: Hold,
        plan: Wait,
    ) -> web.StreamResponse | None:
        """Wait for an instance as long as the request may, and relay to it.

        Returns None if a new plan is needed.
        """
        try:
            return await self._wait_and_relay(request, context, body, hold, plan)
        except asyncio.CancelledError:
            if hold.response is None or not take_interruption(context):
                raise
            return await hold.interrupt(context.interrupted_by, context.request_id)

    async def _wait_and_relay(
        self,
        request: web.Request,
        context: RequestContext,
        body: RequestBody,
        hold: Hold,
        plan: Wait,
    ) -> web.StreamResponse | None:
        loop = asyncio.get_running_loop()
        if hold.wait_s > 0:
            await body.keep()
        if context.problem is not None:  # an earlier attempt failed on an instance
            await asyncio.sleep(_RETRY_PAUSE_S)
        try:
            lease = await self._lease(context, body, hold, plan)
        except StoreError:
            if hold.response is None:
                raise
            message = "the proxy can't write its state"
            return await hold.fail(message, context.request_id)
        if lease is None:
            context.waited = True
            return None
        response = await self._relay(request, context, body, lease, plan, hold)
        context.may_wait_s = hold.deadline - loop.time()
        return response

    async def _lease(
        self, context: RequestContext, body: RequestBody, hold: Hold, plan: Wait
    ) -> Lease | None:
        """Start an instance, and wait for a lease; None if none was granted in time."""
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        context.stage = Stage.WAITING
        wait_s = max(0.0, hold.deadline - begun_at) if body.complete else 0.0
        leasing = context.served.lease_later(
            context, hold.ticket, wait_s=wait_s, joins=plan.joins
        )
        try:
            return await hold.wait(leasing)
        except HoldLimitError as error:
            context.problem = str(error)
            return None
        finally:
            context.wait_s += loop.time() - begun_at
            self._services.metrics.wait.observe(context.wait_s)

    async def _relay(
        self,
        request: web.Request,
        context: RequestContext,
        body: RequestBody,
        lease: Lease,
        plan: Relay | Observe | Wait,
        hold: Hold | None,
    ) -> web.StreamResponse | None:
        """Relay a request under a lease, which ends with it; None if that failed."""
        response_relay = ResponseRelay(
            request,
            context.route.family,
            opening=partial(begin_response, request),
            begun=hold.response if hold is not None else None,
            stall_s=self._services.stall_s,
            added=hold.added_headers if hold is not None else {},
            request_id=context.request_id,
        )
        context.stage = Stage.SERVED
        to_send = outgoing(request, body, hides_credentials=context.hides_credentials)
        if hold is not None and hold.response is not None:
            to_send = in_the_clear(to_send)
        with lease:
            try:
                if lease.node_id is not None and context.route.takes_json:
                    await body.keep()  # to be sent to another node, if that one fails
                if context.route.kind is Kind.WRITE:
                    change = partial(self._change, context, to_send, response_relay)
                    return await relay_change(
                        lease, response_relay, context, plan, change
                    )
                return await relay_request(
                    self._services, to_send, lease, response_relay, context, plan
                )
            except UpstreamError as error:
                lease.check_now()
                if not isinstance(plan, Observe) or not context.route.counts_as_use:
                    context.note_failure(str(error), may_be_done=error.arrived)
        return None

    async def _change(
        self,
        context: RequestContext,
        to_send: PreparedRequest,
        response_relay: ResponseRelay[web.StreamResponse],
        lease: Lease,
    ) -> web.StreamResponse:
        """Relay a request that changes which models the instance has."""
        key = context.key
        changing = context.served.changes.relay(
            context.route.name,
            to_send,
            context.body.head,
            lease,
            response_relay,
            key.id if key is not None else None,
        )
        run = run_under_lease if lease.node_id is None else run_on_node
        response = await run(lease, response_relay, context, changing)
        context.served.unknown.learn(context, response)
        return response

    async def _end_held(
        self,
        context: RequestContext,
        plan: Say | Refuse | Unavailable | Deny,
        hold: Hold,
    ) -> web.StreamResponse:
        """End a response that heartbeats have begun, in its own words."""
        problem = plan if isinstance(plan, Unavailable) else Unavailable()
        told = context.served.replies.unavailable(context, problem)
        return await hold.fail(told.message, context.request_id)

    async def _find_out(
        self,
        request: web.Request,
        context: RequestContext,
        body: RequestBody,
        plan: Choose | Seek | Read,
    ) -> None:
        """Add to the facts what a plan asks for."""
        match plan:
            case Choose():
                context.choose(plan, self._services.pools[plan.pool])
                context.may_wait_s = _granted_s(request, context)
            case Seek():
                context.sought = True
                await body.seek(partial(is_seen, context.route), SOUGHT_BYTES)
            case Read():
                await _read(context, body, plan)


def _granted_s(request: web.Request, context: RequestContext) -> float:
    """Return how long a request may wait in the pool that serves it."""
    return context.served.hold.granted_s(request.headers, context.caller)


async def _read(context: RequestContext, body: RequestBody, plan: Read) -> None:
    """Read a body into memory, as far as limits allow."""
    context.reading = plan.upto
    if plan.upto is Reading.WHOLE:
        await body.keep()
    else:
        is_inference = context.route.kind is Kind.INFERENCE
        await body.keep_small(is_json=is_inference and context.route.takes_json)


async def _end_uninvited(request: web.Request, response: web.StreamResponse) -> None:
    """Close the connection of a client whose body was never invited."""
    if not response.prepared:
        response.force_close()
    await response.prepare(request)
    await response.write_eof()
    if request.transport is not None:
        request.transport.close()
