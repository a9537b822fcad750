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

    def __init__(self, common: Services, changes: ModelChanges) -> None:
        self._common = common
        self._changes = changes

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, or hand it to an instance."""
        exchange: RequestContext = request[REQUEST_CONTEXT]
        exchange.route = self._common.extra_routes.resolve(
            exchange.route, request.method, exchange.path
        )
        marks = request.headers.getall(VIA, ())
        looped = loop_refusal(self._common.mark, marks, exchange)
        if looped is None and exchange.route.asleep is ColdAnswer.ROOT:
            exchange.outcome = "asleep"
            return to_response(root())
        body = RequestBody(request, self._common.budget, stall_s=self._common.stall_s)
        response: web.StreamResponse
        try:
            if looped is not None:
                response = to_response(looped)
            else:
                response = await self._answer(request, exchange, body)
            if body.expects:
                await _end_uninvited(request, response)
            return response
        finally:
            body.close()

    async def _answer(
        self, request: web.Request, exchange: RequestContext, body: RequestBody
    ) -> web.StreamResponse:
        try:
            if not exchange.route.counts_as_use:
                return await self._read(request, exchange, body)
            is_inference = exchange.route.kind is Kind.INFERENCE
            is_json = is_inference and exchange.route.takes_json
            await body.keep_small(is_json=is_json)
            if self._common.spared.wants_none(exchange, body):
                return await self._spare(request, exchange, body)
            return await self._use(request, exchange, body)
        except RefusedError as refused:
            return to_response(refused.reply)
        except _EndedHoldError as ended:
            return ended.response

    async def _read(
        self, request: web.Request, exchange: RequestContext, body: RequestBody
    ) -> web.StreamResponse:
        """Serve what needs no instance from one that is up, else from memory."""
        is_unknown = exchange.route.kind is Kind.UNKNOWN
        await (body.keep_small() if is_unknown else body.keep())
        can_go = body.complete or is_unknown
        is_ours = exchange.route.kind is Kind.ADMIN  # an unknown one, or its method
        lease = self._common.pool.observe() if can_go and not is_ours else None
        if lease is not None:
            limit_s = read_limit_s(exchange.route)
            try:
                return await self._read_from(request, exchange, body, lease, limit_s)
            except UpstreamError as error:
                self._common.pool.check_now()
                if is_unknown and error.arrived:  # it may have been carried out
                    return await self._refuse_waiting(exchange, None, str(error))
        exchange.outcome = "asleep"
        fields = None
        if exchange.route.asleep is ColdAnswer.SHOW:
            fields = self._common.spared.fields(exchange, body)
        reply = self._common.answers.answer(
            exchange.route,
            request.method,
            raw_target(request),
            fields,
            request.headers.get("User-Agent", ""),
        )
        return to_response(reply)

    async def _spare(
        self, request: web.Request, exchange: RequestContext, body: RequestBody
    ) -> web.StreamResponse:
        """Relay what is no use of an instance if one is up, else do without."""
        if (lease := self._common.pool.observe()) is not None:
            try:
                return await self._read_from(request, exchange, body, lease, None)
            except UpstreamError:
                self._common.pool.check_now()
        hold = await self._begin_hold(request, exchange, body)
        return await self._refuse_waiting(exchange, hold, None)

    async def _read_from(
        self,
        request: web.Request,
        exchange: RequestContext,
        body: RequestBody,
        lease: Lease,
        limit_s: float | None,
    ) -> web.StreamResponse:
        """Relay what is no use of an instance; one that says nothing is as none."""
        handover = self._handover(request, exchange, None)
        serving = relay_request(
            self._common,
            outgoing(request, body),
            body,
            lease,
            handover,
            exchange,
            ignore_activity,
        )
        return await run_under_lease(lease, handover, serving, limit_s=limit_s)

    def _handover(
        self, request: web.Request, exchange: RequestContext, hold: Hold | None
    ) -> ResponseRelay[web.StreamResponse]:
        return ResponseRelay(
            request,
            exchange.route.family,
            opening=partial(begin_response, request),
            begun=hold.response if hold is not None else None,
            stall_s=self._common.stall_s,
            added=hold.added_headers if hold is not None else {},
            request_id=exchange.request_id,
        )

    async def _use(
        self, request: web.Request, exchange: RequestContext, body: RequestBody
    ) -> web.StreamResponse:
        """Serve what needs an instance; wake it and perhaps wait if there is none."""
        if exchange.route.kind is Kind.WRITE:
            await _keep_json(exchange, body)
        lease = self._common.pool.try_lease()
        hold: Hold | None = None
        problem: str | None = None
        while True:
            if lease is None:
                hold = hold or await self._begin_hold(request, exchange, body)
                lease = await self._wait(exchange, body, hold)
            if lease is None:
                return await self._refuse_waiting(exchange, hold, problem)
            try:
                return await self._serve(request, exchange, body, lease, hold)
            except UpstreamError as error:
                lease.check_now()
                problem = str(error)
                if error.arrived or not body.complete:
                    return await self._refuse_waiting(exchange, hold, problem)
            hold = hold or await self._begin_hold(request, exchange, body)
            if asyncio.get_running_loop().time() >= hold.deadline:
                return await self._refuse_waiting(exchange, hold, problem)
            lease = None
            await asyncio.sleep(_RETRY_PAUSE_S)

    async def _serve(
        self,
        request: web.Request,
        exchange: RequestContext,
        body: RequestBody,
        lease: Lease,
        hold: Hold | None,
    ) -> web.StreamResponse:
        """Relay one request under a lease, which ends with it."""
        handover = self._handover(request, exchange, hold)
        to_send = outgoing(request, body)
        if hold is not None and hold.response is not None:
            to_send = in_the_clear(to_send)
        if exchange.route.kind is not Kind.WRITE:
            serving = relay_request(
                self._common, to_send, body, lease, handover, exchange, lease.touch
            )
            return await run_under_lease(lease, handover, serving)
        changing = self._changes.relay(
            exchange.route.name, to_send, body.head, lease, handover
        )
        response = await run_under_lease(lease, handover, changing)
        self._common.spared.hear(exchange, body, response)
        exchange.outcome = "relayed"
        return response

    async def _begin_hold(
        self, request: web.Request, exchange: RequestContext, body: RequestBody
    ) -> Hold:
        """Look at a request that would wake an instance, and whether it has to."""
        await _keep_json(exchange, body)
        fields = self._common.spared.fields(exchange, body)
        if (answer := self._common.spared.answer(exchange, fields)) is not None:
            raise RefusedError(answer)
        if fields is not None:
            exchange.note_wanted(fields)
        streams = wants_stream(exchange.route, fields)
        hold = Hold(request, exchange.route.family, self._common.hold, streams=streams)
        if hold.wait_s > 0:
            await body.keep()
        return hold

    async def _wait(
        self, exchange: RequestContext, body: RequestBody, hold: Hold
    ) -> Lease | None:
        """Wait for a lease as long as the request may; None if there is none."""
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        wait_s = max(0.0, hold.deadline - begun_at) if body.complete else 0.0
        try:
            return await hold.wait(
                self._common.pool.lease(
                    exchange.model,
                    wait_s=wait_s,
                    load=exchange.load,
                    joins=exchange.joins,
                )
            )
        except StoreError:
            if hold.response is None:
                raise
            message = "the proxy can't write its state"
            failure = await hold.fail(message, exchange.request_id)
            raise _EndedHoldError(failure) from None
        except HoldLimitError as error:
            refusal = await self._refuse_waiting(exchange, hold, str(error))
            raise _EndedHoldError(refusal) from error
        finally:
            exchange.wait_s += loop.time() - begun_at
            self._common.metrics.wait.observe(exchange.wait_s)

    async def _refuse_waiting(
        self, exchange: RequestContext, hold: Hold | None, problem: str | None
    ) -> web.StreamResponse:
        """Say that there is no instance yet, and when to ask again."""
        exchange.outcome = "provisioning"
        waiting = self._common.status.waiting(problem)
        if hold is not None and hold.response is not None:
            return await hold.fail(waiting.message, exchange.request_id)
        family = exchange.route.family
        reply = provisioning_reply(family, waiting, exchange.request_id)
        if hold is not None:
            reply = reply.with_headers(*hold.confirmation.items())
        return to_response(reply)


async def _keep_json(exchange: RequestContext, body: RequestBody) -> None:
    """Read a body that can be looked at into memory, as far as limits allow."""
    if exchange.route.takes_json:
        await body.keep()


async def _end_uninvited(request: web.Request, response: web.StreamResponse) -> None:
    """End the connection of a client whose body nobody wanted: it sends none."""
    if not response.prepared:
        response.force_close()
    await response.prepare(request)
    await response.write_eof()
    if request.transport is not None:
        request.transport.close()
