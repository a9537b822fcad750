"""Everything that belongs to Ollama: serve, wake, or answer for it."""

import asyncio
from functools import partial

from aiohttp import web

from ollama_proxy.base.errors import HoldLimitError, StoreError, UpstreamError
from ollama_proxy.core.ollama.routes import ColdAnswer, Kind, wants_stream
from ollama_proxy.fleet.pool import Lease
from ollama_proxy.server.aiohttp.reply import to_response
from ollama_proxy.server.aiohttp.request import REQUEST_CONTEXT, outgoing
from ollama_proxy.server.raw_target import raw_target
from ollama_proxy.serving.cold_answers import provisioning_reply, root
from ollama_proxy.serving.hold import Hold
from ollama_proxy.serving.loop_refusal import loop_refusal
from ollama_proxy.serving.model_changes import ModelChanges
from ollama_proxy.serving.relay import (
    Services,
    ignore_activity,
    read_limit_s,
    relay_request,
    run_under_lease,
)
from ollama_proxy.serving.request_body import RequestBody
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.serving.response_relay import ResponseRelay, begin_response
from ollama_proxy.serving.short_circuit import RefusedError
from ollama_proxy.upstream.loop_mark import VIA
from ollama_proxy.upstream.request import in_the_clear

_RETRY_PAUSE_S = 0.25


class _EndedHoldError(Exception):
    """A wait ended without an instance; carries the response."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__(response.status)
        self.response = response


class OllamaHandler:
    """Handles every request that is not for the proxy itself."""

    def __init__(self, services: Services, changes: ModelChanges) -> None:
        self._services = services
        self._changes = changes

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, or hand it to an instance."""
        context: RequestContext = request[REQUEST_CONTEXT]
        context.route = self._services.extra_routes.resolve(
            context.route, request.method, context.path
        )
        marks = request.headers.getall(VIA, ())
        looped = loop_refusal(self._services.mark, marks, context)
        if looped is None and context.route.asleep is ColdAnswer.ROOT:
            context.outcome = "asleep"
            return to_response(root())
        body = RequestBody(
            request, self._services.budget, stall_s=self._services.stall_s
        )
        response: web.StreamResponse
        try:
            if looped is not None:
                response = to_response(looped)
            else:
                response = await self._answer(request, context, body)
            if body.expects:
                await _end_uninvited(request, response)
            return response
        finally:
            body.close()

    async def _answer(
        self, request: web.Request, context: RequestContext, body: RequestBody
    ) -> web.StreamResponse:
        try:
            if not context.route.counts_as_use:
                return await self._read(request, context, body)
            is_inference = context.route.kind is Kind.INFERENCE
            is_json = is_inference and context.route.takes_json
            await body.keep_small(is_json=is_json)
            if self._services.spared.wants_none(context, body):
                return await self._spare(request, context, body)
            return await self._use(request, context, body)
        except RefusedError as refused:
            return to_response(refused.reply)
        except _EndedHoldError as ended:
            return ended.response

    async def _read(
        self, request: web.Request, context: RequestContext, body: RequestBody
    ) -> web.StreamResponse:
        """Serve what needs no instance from one that is up, else from memory."""
        is_unknown = context.route.kind is Kind.UNKNOWN
        await (body.keep_small() if is_unknown else body.keep())
        can_go = body.complete or is_unknown
        is_ours = context.route.kind is Kind.ADMIN  # an unknown one, or its method
        lease = self._services.pool.observe() if can_go and not is_ours else None
        if lease is not None:
            limit_s = read_limit_s(context.route)
            try:
                return await self._read_from(request, context, body, lease, limit_s)
            except UpstreamError as error:
                self._services.pool.check_now()
                if is_unknown and error.arrived:  # it may have been carried out
                    return await self._refuse_waiting(context, None, str(error))
        context.outcome = "asleep"
        fields = None
        if context.route.asleep is ColdAnswer.SHOW:
            fields = self._services.spared.fields(context, body)
        reply = self._services.answers.answer(
            context.route,
            request.method,
            raw_target(request),
            fields,
            request.headers.get("User-Agent", ""),
        )
        return to_response(reply)

    async def _spare(
        self, request: web.Request, context: RequestContext, body: RequestBody
    ) -> web.StreamResponse:
        """Relay what is no use of an instance if one is up, else do without."""
        if (lease := self._services.pool.observe()) is not None:
            try:
                return await self._read_from(request, context, body, lease, None)
            except UpstreamError:
                self._services.pool.check_now()
        hold = await self._begin_hold(request, context, body)
        return await self._refuse_waiting(context, hold, None)

    async def _read_from(
        self,
        request: web.Request,
        context: RequestContext,
        body: RequestBody,
        lease: Lease,
        limit_s: float | None,
    ) -> web.StreamResponse:
        """Relay what is no use of an instance; one that says nothing is as none."""
        response_relay = self._response_relay(request, context, None)
        serving = relay_request(
            self._services,
            outgoing(request, body),
            body,
            lease,
            response_relay,
            context,
            ignore_activity,
        )
        return await run_under_lease(lease, response_relay, serving, limit_s=limit_s)

    def _response_relay(
        self, request: web.Request, context: RequestContext, hold: Hold | None
    ) -> ResponseRelay[web.StreamResponse]:
        return ResponseRelay(
            request,
            context.route.family,
            opening=partial(begin_response, request),
            begun=hold.response if hold is not None else None,
            stall_s=self._services.stall_s,
            added=hold.added_headers if hold is not None else {},
            request_id=context.request_id,
        )

    async def _use(
        self, request: web.Request, context: RequestContext, body: RequestBody
    ) -> web.StreamResponse:
        """Serve what needs an instance; wake it and perhaps wait if there is none."""
        if context.route.kind is Kind.WRITE:
            await _keep_json(context, body)
        lease = self._services.pool.try_lease()
        hold: Hold | None = None
        problem: str | None = None
        while True:
            if lease is None:
                hold = hold or await self._begin_hold(request, context, body)
                lease = await self._wait(context, body, hold)
            if lease is None:
                return await self._refuse_waiting(context, hold, problem)
            try:
                return await self._serve(request, context, body, lease, hold)
            except UpstreamError as error:
                lease.check_now()
                problem = str(error)
                if error.arrived or not body.complete:
                    return await self._refuse_waiting(context, hold, problem)
            hold = hold or await self._begin_hold(request, context, body)
            if asyncio.get_running_loop().time() >= hold.deadline:
                return await self._refuse_waiting(context, hold, problem)
            lease = None
            await asyncio.sleep(_RETRY_PAUSE_S)

    async def _serve(
        self,
        request: web.Request,
        context: RequestContext,
        body: RequestBody,
        lease: Lease,
        hold: Hold | None,
    ) -> web.StreamResponse:
        """Relay one request under a lease, which ends with it."""
        response_relay = self._response_relay(request, context, hold)
        to_send = outgoing(request, body)
        if hold is not None and hold.response is not None:
            to_send = in_the_clear(to_send)
        if context.route.kind is not Kind.WRITE:
            serving = relay_request(
                self._services,
                to_send,
                body,
                lease,
                response_relay,
                context,
                lease.touch,
            )
            return await run_under_lease(lease, response_relay, serving)
        changing = self._changes.relay(
            context.route.name, to_send, body.head, lease, response_relay
        )
        response = await run_under_lease(lease, response_relay, changing)
        self._services.spared.hear(context, body, response)
        context.outcome = "relayed"
        return response

    async def _begin_hold(
        self, request: web.Request, context: RequestContext, body: RequestBody
    ) -> Hold:
        """Look at a request that would wake an instance, and whether it has to."""
        await _keep_json(context, body)
        fields = self._services.spared.fields(context, body)
        if (answer := self._services.spared.answer(context, fields)) is not None:
            raise RefusedError(answer)
        if fields is not None:
            context.note_wanted(fields)
        streams = wants_stream(context.route, fields)
        hold = Hold(request, context.route.family, self._services.hold, streams=streams)
        if hold.wait_s > 0:
            await body.keep()
        return hold

    async def _wait(
        self, context: RequestContext, body: RequestBody, hold: Hold
    ) -> Lease | None:
        """Wait for a lease as long as the request may; None if there is none."""
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        wait_s = max(0.0, hold.deadline - begun_at) if body.complete else 0.0
        try:
            return await hold.wait(
                self._services.pool.lease(
                    context.model,
                    wait_s=wait_s,
                    load=context.load,
                    joins=context.joins,
                )
            )
        except StoreError:
            if hold.response is None:
                raise
            message = "the proxy can't write its state"
            failure = await hold.fail(message, context.request_id)
            raise _EndedHoldError(failure) from None
        except HoldLimitError as error:
            refusal = await self._refuse_waiting(context, hold, str(error))
            raise _EndedHoldError(refusal) from error
        finally:
            context.wait_s += loop.time() - begun_at
            self._services.metrics.wait.observe(context.wait_s)

    async def _refuse_waiting(
        self, context: RequestContext, hold: Hold | None, problem: str | None
    ) -> web.StreamResponse:
        """Say that there is no instance yet, and when to ask again."""
        context.outcome = "provisioning"
        waiting = self._services.status.waiting(problem)
        if hold is not None and hold.response is not None:
            return await hold.fail(waiting.message, context.request_id)
        family = context.route.family
        reply = provisioning_reply(family, waiting, context.request_id)
        if hold is not None:
            reply = reply.with_headers(*hold.confirmation.items())
        return to_response(reply)


async def _keep_json(context: RequestContext, body: RequestBody) -> None:
    """Read a body that can be looked at into memory, as far as limits allow."""
    if context.route.takes_json:
        await body.keep()


async def _end_uninvited(request: web.Request, response: web.StreamResponse) -> None:
    """End the connection of a client whose body nobody wanted: it sends none."""
    if not response.prepared:
        response.force_close()
    await response.prepare(request)
    await response.write_eof()
    if request.transport is not None:
        request.transport.close()
