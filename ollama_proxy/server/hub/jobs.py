"""Answer ``POST /jobs``, as the former hub did, by whatever serves the model.

A job passes through the same decisions as a request for Ollama's ``/api/generate`` or
``/api/chat``: its key, its pool, the queue, a launch. Only its answers are other ones.
"""

import asyncio

from aiohttp import web

from ollama_proxy.base.errors import ProxyError
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.hub_routes import JOBS
from ollama_proxy.core.nodes.job import MOST_BYTES, Job, JobError, parse_job
from ollama_proxy.core.nodes.job_errors import bad_job, in_old_shape, refusal
from ollama_proxy.server.aiohttp.reply import to_response
from ollama_proxy.server.aiohttp.request import REQUEST_CONTEXT
from ollama_proxy.server.aiohttp.request_body import RequestBody, invite_later
from ollama_proxy.server.hub.job_run import JobRun
from ollama_proxy.server.hub.job_stream import JobStream
from ollama_proxy.serving.interruptions import (
    TELL_S,
    interruption_reply,
    take_interruption,
)
from ollama_proxy.serving.relay import Services
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.upstream.loop_mark import VIA

_FULL = (
    "the bodies of waiting requests take up OLLAMA_PROXY_MAX_WAITING_BYTES; try again"
    " later"
)


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
            job = await _read_job(body)
            body.rewrite(job.body)
            stream = JobStream(request, streams=job.streams, pause_s=self._pause_s)
            async with stream.kept_alive():
                return await self._run(request, context, job, stream)
        except JobError as error:
            return _refuse(request, bad_job(str(error), error.status))
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
        context.seen_model = job.model
        context.objection = services.mark.objection(marks)
        run = JobRun(services, request, context, stream)
        try:
            return await run.answer()
        except ProxyError as error:
            context.outcome = "broken"
            return await stream.say(refusal(500, str(error)), services.stall_s)
        except asyncio.CancelledError:
            if stream.response is None or not take_interruption(context):
                raise
            told = in_old_shape(interruption_reply(context))
            return await stream.say(told, TELL_S)


async def _read_job(body: RequestBody) -> Job:
    """Return the job of a request. Raises `JobError`."""
    if body.encoding:
        message = f"the body is compressed ({body.encoding}); send it as it is"
        raise JobError(message, 415)
    is_whole = await body.keep(MOST_BYTES)
    is_long = len(body.head) > MOST_BYTES or not (is_whole or body.head)
    if is_long:
        message = f"the body is longer than {MOST_BYTES >> 20} MiB; send a shorter one"
        raise JobError(message, 413)
    if not is_whole:
        raise JobError(_FULL, 503)
    return parse_job(body.head)


def _refuse(request: web.Request, reply: Reply) -> web.Response:
    """Return a refusal; the connection ends if the body was not read."""
    response = to_response(reply)
    if not request.content.is_eof():
        response.force_close()
    return response
