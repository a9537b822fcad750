"""Carry out one job: by the decisions on a request for Ollama, in the hub's words."""

import asyncio
import uuid
from typing import Final, NoReturn

from aiohttp import web

from ollama_proxy.base.errors import HoldLimitError
from ollama_proxy.core.dispatch import decide
from ollama_proxy.core.failover import MOST_NODES
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.job_errors import (
    all_failed,
    in_old_shape,
    no_nodes,
    refusal,
)
from ollama_proxy.core.nodes.plain_request import is_plain
from ollama_proxy.core.ollama.activity import error_text
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
from ollama_proxy.server.hub.job_answers import NodeRefusal
from ollama_proxy.server.hub.job_relay import JobRelay
from ollama_proxy.server.hub.job_stream import JobStream
from ollama_proxy.serving.permits import admit
from ollama_proxy.serving.relay import Services
from ollama_proxy.serving.request_context import RequestContext, Stage

_FIRST_ERROR, _UNAVAILABLE = 400, 503
_RETRY_PAUSE_S: Final = 0.25


class JobRun:
    """Carries out one job."""

    def __init__(
        self,
        services: Services,
        request: web.Request,
        context: RequestContext,
        stream: JobStream,
    ) -> None:
        self._services = services
        self._request = request
        self._context = context
        self._stream = stream
        self._relay = JobRelay(services, request, context, stream)
        self._begun_at = asyncio.get_running_loop().time()

    async def answer(self) -> web.StreamResponse:
        """Have the job done, or answer why that is impossible."""
        context, services = self._context, self._services
        while True:
            context.may_wait_s = self._left_s()
            plan = decide(context, context.served.fleet)
            match plan:
                case Relay() | Observe() | Wait():
                    response = await self._attempt(plan)
                    if response is not None:
                        return response
                case Choose():
                    context.choose(plan, services.pools[plan.pool])
                case Admit():
                    now = services.clock.now()
                    refused = admit(services.limits, context, plan, now)
                    if refused is not None:
                        return await self._say(Deny(refused))
                case Say() | Refuse() | Unavailable() | Deny():
                    return await self._say(plan)
                case Seek() | Read() | Gather():
                    _whole_already(plan)

    async def _attempt(self, plan: Relay | Observe | Wait) -> web.StreamResponse | None:
        """Have it done by an instance; None if none is there, or all have failed."""
        context = self._context
        lease = await self._lease(plan)
        if lease is None:
            return None
        told = await self._relay.relay(lease, plan)
        if isinstance(told, JobStream):
            return told.response
        if isinstance(told, NodeRefusal):
            context.outcome = "relayed"
            words = in_old_shape(refusal(told.status, told.message))
            return await self._stream.say(words, self._services.stall_s)
        # After its nodes an instance of ours gets as many tries, if one may come.
        most = 2 * MOST_NODES if self._is_launched_by_us else MOST_NODES
        context.waited = len(self._relay.failures) >= most
        return None

    def _left_s(self) -> float:
        """Return how long the job may still wait for an instance or a slot.

        Empty lines keep its connection, so it need not ask for a wait that can help: it
        waits as long as a request may at most.
        """
        policy, caller = self._context.served.hold, self._context.caller
        wait_s = policy.granted_s(self._request.headers, caller)
        if "Prefer" not in self._request.headers and self._can_wait_help():
            wait_s = max(wait_s, policy.longest_s(caller))
        return self._begun_at + wait_s - asyncio.get_running_loop().time()

    def _can_wait_help(self) -> bool:
        """Tell whether an instance has all slots taken, or one may be launched."""
        context, pool = self._context, self._context.served.pool
        if self._is_launched_by_us:
            return True
        if pool.nodes is None:
            return pool.is_ready
        return pool.nodes.has_any_for(
            context.only,
            own=False,
            yields=not context.may_wake,
            model=context.model,
            **context.served.asked_of_nodes(context),
        )

    @property
    def _is_launched_by_us(self) -> bool:
        controllers = self._context.served.pool.controllers
        return any(not one.offer.is_external for one in controllers)

    async def _lease(self, plan: Relay | Observe | Wait) -> Lease | None:
        """Lease an instance, at once or after a wait."""
        context = self._context
        if not isinstance(plan, Wait):
            context.tried = True
            return context.served.lease(context, plan)
        if self._relay.failures:
            await asyncio.sleep(_RETRY_PAUSE_S)
        context.served.admit(context, plan)
        loop = asyncio.get_running_loop()
        begun_at, context.stage = loop.time(), Stage.WAITING
        try:
            lease = await context.served.lease_later(
                context,
                Ticket(turn_of(context.caller)),
                wait_s=max(0.0, context.may_wait_s),
                joins=plan.joins,
            )
        except HoldLimitError as error:
            context.problem, lease = str(error), None
        finally:
            context.wait_s += loop.time() - begun_at
            self._services.metrics.wait.observe(context.wait_s)
        context.waited = lease is None
        return lease

    async def _say(self, plan: Say | Refuse | Unavailable | Deny) -> web.StreamResponse:
        """Answer in words, in the former hub's shape."""
        reply = self._context.served.replies.reply(self._context, plan)
        shaped = self._shaped(reply) if reply.status >= _FIRST_ERROR else reply
        return await self._stream.say(shaped, self._services.stall_s)

    def _shaped(self, reply: Reply) -> Reply:
        """Return an error as the former hub had it.

        The reason is added where the former hub had none: a launch could have helped,
        or the job is of a kind that former agents do not take.
        """
        if self._relay.failures:
            self._context.outcome = "broken"
            self._context.may_be_done = self._relay.may_be_done  # else it costs nothing
            return all_failed(self._relay.failures, str(uuid.uuid4()))
        if reply.status != _UNAVAILABLE:
            return in_old_shape(reply)
        has_reason = self._is_launched_by_us or not is_plain(self._context)
        told = no_nodes(error_text(reply.body) if has_reason else "")
        hints = [field for field in reply.headers if field[0] == "Retry-After"]
        return told.with_headers(*hints)


def _whole_already(plan: Seek | Read | Gather) -> NoReturn:
    """Stop at a plan that no job gets, since its body is in memory."""
    raise AssertionError(plan)
