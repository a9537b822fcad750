"""Answer ``POST /jobs``, as the former hub did, by whatever serves the model.

A job passes through the same decisions as a request for Ollama's ``/api/generate`` or
``/api/chat``: its key, its pool, the queue, a launch. Only its answers are other ones.
"""

import asyncio
import uuid
from typing import NoReturn

from aiohttp import web
from multidict import CIMultiDict

from ollama_proxy.base.errors import (
    HoldLimitError,
    StoreError,
    UpstreamError,
)
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.dispatch import decide
from ollama_proxy.core.http.compression import CLEAR, encoding_of
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.hub_routes import JOBS
from ollama_proxy.core.nodes.job import MOST_BYTES, Job, JobError, parse_job
from ollama_proxy.core.nodes.job_errors import (
    NodeFailure,
    all_failed,
    bad_job,
    in_old_shape,
    no_nodes,
    refusal,
)
from ollama_proxy.core.ollama.activity import error_text, watch
from ollama_proxy.core.plans import (
    Admit,
    Choose,
    Deny,
    Gather,
    Observe,
    Read,
    Refuse,
    Relay,
    Say,
    Seek,
    Unavailable,
    Wait,
)
from ollama_proxy.core.waiting_order import turn_of
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.waiters import Ticket
from ollama_proxy.server.aiohttp.reply import to_response
from ollama_proxy.server.aiohttp.request import REQUEST_CONTEXT
from ollama_proxy.server.aiohttp.request_body import RequestBody, invite_later
from ollama_proxy.server.hub.job_answers import (
    NodeError,
    begun,
    events,
    raise_refusal,
)
from ollama_proxy.server.hub.job_stream import JobStream, are_lines
from ollama_proxy.serving.interruptions import (
    TELL_S,
    interruption_reply,
    take_interruption,
)
from ollama_proxy.serving.permits import admit
from ollama_proxy.serving.relay import Services, ignore_activity, run_under_lease
from ollama_proxy.serving.request_context import RequestContext, Stage
from ollama_proxy.serving.response_relay import ResponseRelay
from ollama_proxy.upstream.loop_mark import VIA
from ollama_proxy.upstream.request import PreparedRequest

_FIRST_ERROR, _SERVER_ERROR, _UNAVAILABLE = 400, 500, 503
_FULL = "the bodies of waiting requests take up OLLAMA_PROXY_MAX_WAITING_BYTES"
_STORE = "the proxy can't write its state"


class JobHandlers:
    """Takes jobs. ``timing``: between the empty lines."""

    def __init__(self, services: Services, timing: Timing) -> None:
        self._services = services
        self._pause_s = timing.job_line_s

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.post(JOBS, self.run, expect_handler=invite_later)]

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Have a job done; its client gets empty lines until the answer begins."""
        services, context = self._services, request[REQUEST_CONTEXT]
        body = RequestBody(request, services.budget, stall_s=services.stall_s)
        context.body = body
        try:
            refused, job = await _read_job(body)
            if job is None:
                return _refuse(request, refused)
            body.rewrite(job.body)
            stream = JobStream(request, streams=job.streams, pause_s=self._pause_s)
            async with stream.kept_alive():
                return await self._run(request, context, job, stream)
        finally:
            body.close()

    async def _run(
        self,
        request: web.Request,
        context: RequestContext,
        job: Job,
        stream: JobStream,
    ) -> web.StreamResponse:
        """Carry out a job, and end its answer with words if it is interrupted."""
        services, marks = self._services, request.headers.getall(VIA, ())
        context.route, context.is_routed = job.route, services.pools.leave_no_choice
        context.objection = services.mark.objection(marks)
        run = JobRun(services, request, context, stream)
        try:
            return await run.answer()
        except StoreError:
            if stream.response is None:
                raise
            told = Reply(_UNAVAILABLE, no_nodes(_STORE).body)
            return await stream.say(told, services.stall_s)
        except asyncio.CancelledError:
            if stream.response is None or not take_interruption(context):
                raise
            told = in_old_shape(interruption_reply(context))
            return await stream.say(told, TELL_S)


class JobRun:
    """Carries out one job. ``failures``: what nodes did with it in vain."""

    def __init__(
        self,
        services: Services,
        request: web.Request,
        context: RequestContext,
        stream: JobStream,
    ) -> None:
        self.failures: list[NodeFailure] = []
        self._services = services
        self._request = request
        self._context = context
        self._stream = stream

    async def answer(self) -> web.StreamResponse:
        """Have the job done, or answer why that is impossible."""
        context, services = self._context, self._services
        context.may_wait_s = self._longest_wait_s()
        while True:
            plan = decide(context, context.served.fleet)
            match plan:
                case Relay() | Observe() | Wait():
                    lease = await self._lease(plan)
                    if lease is not None and await self._relay(lease):
                        assert self._stream.response is not None  # noqa: S101 - it was
                        return self._stream.response
                case Choose():
                    context.choose(plan, services.pools[plan.pool])
                    context.may_wait_s = self._longest_wait_s()
                case Admit():
                    now = services.clock.now()
                    refused = admit(services.limits, context, plan, now)
                    if refused is not None:
                        return await self._say(Deny(refused))
                case Say() | Refuse() | Unavailable() | Deny():
                    return await self._say(plan)
                case Seek() | Read() | Gather():
                    _whole_already(plan)

    def _longest_wait_s(self) -> float:
        """Return how long the job may wait for an instance or a slot.

        Empty lines keep its connection, so it need not ask for more than a moment: it
        waits as long as a request may at most, unless it says itself how long. Where
        only machines of others could serve it, and none does, no wait would help.
        """
        policy, pool = self._context.served.hold, self._context.served.pool
        granted_s = policy.granted_s(self._request.headers, self._context.caller)
        if "Prefer" in self._request.headers:
            return granted_s
        helps = pool.is_ready or bool(pool.controllers)
        longest_s = policy.longest_s(self._context.caller)
        return max(granted_s, longest_s if helps else 0.0)

    async def _lease(self, plan: Relay | Observe | Wait) -> Lease | None:
        """Lease an instance, at once or after a wait."""
        context = self._context
        if not isinstance(plan, Wait):
            context.tried = True
            return context.served.lease(context, plan)
        context.served.admit(context, plan)
        loop = asyncio.get_running_loop()
        begun_at, context.stage = loop.time(), Stage.WAITING
        try:
            lease = await context.served.pool.lease(
                context.model,
                wait_s=max(0.0, context.may_wait_s),
                load=context.load,
                joins=plan.joins or context.only is not None,
                only=context.only,
                takes_slot=context.takes_slot,
                ticket=Ticket(turn_of(context.caller)),
                arrival=context.arrival,
                yields=not context.may_wake,
            )
        except HoldLimitError as error:
            context.problem, lease = str(error), None
        finally:
            waited_s = loop.time() - begun_at
            context.wait_s += waited_s
            context.may_wait_s -= waited_s
            self._services.metrics.wait.observe(context.wait_s)
        context.waited = lease is None
        return lease

    async def _relay(self, lease: Lease) -> bool:
        """Have the job done under a lease, which ends with it; False if that failed."""
        context, services = self._context, self._services
        relay = ResponseRelay[JobStream](
            self._request,
            context.route.family,
            opening=self._stream.begin,
            begun=None,
            stall_s=services.stall_s,
            added={},
            request_id=context.request_id,
        )
        context.stage = Stage.SERVED
        with lease:
            try:
                serving = self._ask(lease, relay)
                await run_under_lease(lease, relay, context, serving)
            except UpstreamError as error:
                lease.check_now()
                self._fail(lease, str(error), None)
                context.note_failure(str(error), may_be_done=error.arrived)
            except NodeError as error:
                self._fail(lease, error.message, error.status)
                context.note_failure(error.message, may_be_done=True)
            else:
                return True
        return False

    async def _ask(self, lease: Lease, relay: ResponseRelay[JobStream]) -> JobStream:
        """Send the job, and relay its answer once the first byte is here.

        Raises `UpstreamError` without one, and `NodeError` for a refusal.
        """
        context, to_send = self._context, _prepared(self._context)
        client = self._services.relay
        asked = await client.ask(to_send, lease.upstream, lease.mark_sent)
        async with asked as answer:
            context.served.learn(context, answer, lease.launch_id)
            if encoding := encoding_of(answer.headers):
                message = f"its answer is compressed ({encoding}), though not asked for"
                raise UpstreamError(message, arrived=True)
            chunks = await begun(answer, lease)
            lease.lift_limit()
            if answer.status >= _FIRST_ERROR:
                await raise_refusal(answer, chunks, relay)
            context.outcome = "relayed"
            if self._stream.is_events and are_lines(answer):
                chunks = events(chunks)
            use = watch(context.route.name, answer, lease)
            touch = lease.mark_alive if context.may_wake else ignore_activity
            return await relay.run(answer, chunks, touch, use)

    def _fail(self, lease: Lease, message: str, status: int | None) -> None:
        """Note what one node did."""
        self.failures.append(NodeFailure(lease.launch_id, message, status))

    async def _say(self, plan: Say | Refuse | Unavailable | Deny) -> web.StreamResponse:
        """Answer in words, in the former hub's shape."""
        reply = self._context.served.replies.reply(self._context, plan)
        shaped = self._shaped(reply) if reply.status >= _FIRST_ERROR else reply
        return await self._stream.say(shaped, self._services.stall_s)

    def _shaped(self, reply: Reply) -> Reply:
        """Return an error as the former hub had it."""
        if self.failures:
            last = self.failures[-1]
            if last.status is not None and last.status < _SERVER_ERROR:
                return in_old_shape(refusal(last.status, last.message))
            self._context.outcome = "broken"
            return all_failed(self.failures, str(uuid.uuid4()))
        if reply.status != _UNAVAILABLE:
            return in_old_shape(reply)
        has_own = bool(self._context.served.pool.controllers)
        told = no_nodes(error_text(reply.body) if has_own else "")
        hints = [field for field in reply.headers if field[0] == "Retry-After"]
        return told.with_headers(*hints)


async def _read_job(body: RequestBody) -> tuple[Reply, Job | None]:
    """Return the job of a request; None, and the refusal, if there is none."""
    if body.encoding:
        message = f"the body is compressed ({body.encoding}); send it as it is"
        return bad_job(message, 415), None
    if not await body.keep(MOST_BYTES) and len(body.head) < MOST_BYTES:
        is_known_long = not body.head
        told = bad_job(_LONG, 413) if is_known_long else bad_job(_FULL, _UNAVAILABLE)
        return told, None
    if len(body.head) > MOST_BYTES:
        return bad_job(_LONG, 413), None
    try:
        return bad_job(""), parse_job(body.head)
    except JobError as error:
        return bad_job(str(error)), None


_LONG = f"the body is longer than {MOST_BYTES >> 20} MiB; send a shorter one"


def _refuse(request: web.Request, reply: Reply) -> web.Response:
    """Return a refusal; the connection ends if the body was not read."""
    response = to_response(reply)
    if not request.content.is_eof():
        response.force_close()
    return response


def _prepared(context: RequestContext) -> PreparedRequest:
    """Return a job as an instance gets it: none of the client's headers but its name.

    The former hub asked in its own name, too.
    """
    fields = CIMultiDict({"Content-Type": "application/json", **CLEAR})
    if context.agent:
        fields["User-Agent"] = context.agent
    assert isinstance(context.body, RequestBody)  # noqa: S101 - `run` has made it
    return PreparedRequest("POST", context.route.name, fields, context.body)


def _whole_already(plan: Seek | Read | Gather) -> NoReturn:
    """Stop at a plan that no job gets, since its body is in memory."""
    raise AssertionError(plan)
