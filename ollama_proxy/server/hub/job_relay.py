"""Send a job to one node after the other, until one answers it."""

from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

from aiohttp import web

from ollama_proxy.base.errors import UpstreamError
from ollama_proxy.core.http.compression import encoding_of
from ollama_proxy.core.nodes.job_errors import NodeFailure
from ollama_proxy.core.nodes.plain_request import EXECUTE
from ollama_proxy.core.plans import Observe, Relay, Wait
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.server.aiohttp.request_body import RequestBody
from ollama_proxy.server.hub.job_answers import (
    NodeRefusal,
    begun,
    events,
    read_refusal,
)
from ollama_proxy.server.hub.job_stream import JobStream, are_lines
from ollama_proxy.serving.attempts import Attempts, HeldAnswer
from ollama_proxy.serving.node_relay import (
    attempts_of,
    first_byte_limit_s,
    run_on_node,
)
from ollama_proxy.serving.relay import Services, note_answer, run_under_lease
from ollama_proxy.serving.request_context import RequestContext, Stage
from ollama_proxy.serving.response_relay import ResponseRelay
from ollama_proxy.upstream.request import PreparedRequest, in_our_name

_FIRST_ERROR: Final = 400

Told = JobStream | NodeRefusal


class JobRelay:
    """Relays one job. ``failures``: what nodes did with it in vain.

    ``may_be_done``: one of them may have worked on it, though it has not answered.

    A job is sent to another node even if one may have begun to work on it, as the
    former hub did.
    """

    def __init__(
        self,
        services: Services,
        request: web.Request,
        context: RequestContext,
        stream: JobStream,
    ) -> None:
        self.failures: list[NodeFailure] = []
        self.may_be_done = False
        self._services = services
        self._request = request
        self._context = context
        self._stream = stream

    async def relay(self, lease: Lease, plan: Relay | Observe | Wait) -> Told | None:
        """Have the job done, beginning under a lease, which is given back.

        Returns None if no node did it; ``failures`` says why.
        """
        context = self._context
        context.stage = Stage.SERVED
        attempts = attempts_of(context, plan, may_repeat=True, can_repeat=lambda: True)
        try:
            told: Told | HeldAnswer = await attempts.run(
                lease, partial(self._run, attempts, plan)
            )
        except UpstreamError as error:
            self.may_be_done |= error.arrived
            context.note_failure(str(error), may_be_done=False)
        else:
            if not isinstance(told, HeldAnswer):
                return told
            context.note_failure(told.said, may_be_done=True)  # they all have answered
        finally:
            context.tried_on = attempts.tried
            self.failures += [
                NodeFailure(one.node_id, one.said, one.status) for one in attempts.made
            ]
        return None

    def _run(
        self, attempts: Attempts, plan: Relay | Observe | Wait, lease: Lease
    ) -> Coroutine[Any, Any, Told | HeldAnswer]:
        """Have one node do the job, at the cost of its key and within its time."""
        services, context = self._services, self._context
        relay = ResponseRelay[JobStream](
            self._request,
            context.route.family,
            opening=self._stream.begin,
            begun=None,
            stall_s=services.stall_s,
            added={},
            request_id=context.request_id,
        )
        serving = self._ask(attempts, lease, relay)
        if lease.node_id is None:
            return run_under_lease(lease, relay, context, serving)
        limit_s = first_byte_limit_s(services, lease, context, plan)
        return run_on_node(lease, relay, context, serving, limit_s)

    async def _ask(
        self, attempts: Attempts, lease: Lease, relay: ResponseRelay[JobStream]
    ) -> Told | HeldAnswer:
        """Send the job, and relay its answer once the first byte is here.

        Raises `UpstreamError` if there is none.
        """
        context = self._context
        to_send = _prepared(context, is_whole=lease.serves_all)
        client = self._services.relay
        asked = await client.ask(to_send, lease.upstream, lease.mark_sent)
        async with asked as answer:
            if encoding := encoding_of(answer.headers):
                message = f"its answer is compressed ({encoding}), though not asked for"
                raise UpstreamError(message, arrived=True)
            chunks = await begun(answer, lease)
            if answer.status >= _FIRST_ERROR:
                lease.lift_limit()
                told = await read_refusal(answer, chunks, relay.meter)
                if isinstance(told, NodeRefusal):
                    attempts.note_answer(lease, answer.status)
                return told
            attempts.note_answer(lease, answer.status)
            touch, use = note_answer(answer, lease, context, is_read=False)
            if self._stream.is_events and are_lines(answer):
                chunks = events(chunks)
            return await relay.run(answer, chunks, touch, use)


def _prepared(context: RequestContext, *, is_whole: bool) -> PreparedRequest:
    """Return a job as an instance gets it: none of the client's headers but its name.

    The former hub asked in its own name, too. ``is_whole``: the instance serves all of
    Ollama's API.
    """
    assert isinstance(context.body, RequestBody)  # noqa: S101 - a job has one
    path = context.route.name if is_whole else EXECUTE
    return in_our_name(path, context.body, context.agent)
