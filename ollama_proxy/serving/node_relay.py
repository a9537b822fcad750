"""Relay a request under a lease: on a node of the house, it goes on to the next one."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from ollama_proxy.base.errors import UpstreamError
from ollama_proxy.core.body_look import look
from ollama_proxy.core.failover import UNSTREAMED
from ollama_proxy.core.nodes.plain_request import EXECUTE
from ollama_proxy.core.ollama.activity import NO_USE
from ollama_proxy.core.ollama.request_fields import wants_stream
from ollama_proxy.core.ollama.routes import Kind, Streams
from ollama_proxy.core.plans import Observe, Relay, Wait
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.serving.attempts import Attempts, HeldAnswer, hold
from ollama_proxy.serving.relay import (
    Services,
    ignore_activity,
    note_answer,
    relay_once,
    run_under_lease,
)
from ollama_proxy.serving.request_context import RequestContext, TriedOn
from ollama_proxy.serving.response_relay import ResponseRelay, ResponseT
from ollama_proxy.upstream.request import UpstreamRequest, in_our_name

T = TypeVar("T")

_READS = frozenset({Kind.READ, Kind.SYSTEM})
_SAFE = frozenset({"GET", "HEAD"})


def relay_request(
    services: Services,
    to_send: UpstreamRequest,
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    context: RequestContext,
    plan: Relay | Observe | Wait,
) -> Coroutine[Any, Any, ResponseT]:
    """Send a request under a lease, and relay the response, as `relay_once` does.

    If the lease is on a node, the request goes on to another one as long as no byte of
    an answer was relayed. This raises `UpstreamError` if none has answered.
    """
    if lease.node_id is None:
        return relay_once(services, to_send, lease, response_relay, context, plan)
    ask = partial(_ask, services, to_send, response_relay, context, plan)
    return _over_nodes(lease, response_relay, context, plan, ask)


def relay_change(
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    context: RequestContext,
    plan: Relay | Observe | Wait,
    change: Callable[[Lease], Coroutine[Any, Any, ResponseT]],
) -> Coroutine[Any, Any, ResponseT]:
    """Have models changed under a lease; on a node that fails, on the next one.

    What a node answers is final, even a 5xx.
    """
    if lease.node_id is None:
        return change(lease)

    def ask(_attempts: Attempts, on: Lease) -> Coroutine[Any, Any, ResponseT]:
        return change(on)

    return _over_nodes(lease, response_relay, context, plan, ask)


async def _over_nodes(
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    context: RequestContext,
    plan: Relay | Observe | Wait,
    ask: Callable[[Attempts, Lease], Awaitable[ResponseT | HeldAnswer]],
) -> ResponseT:
    """Have a request asked of nodes in turn, beginning with that of a lease."""
    attempts = attempts_of(
        context,
        plan,
        may_repeat=_may_repeat(context),
        can_repeat=lambda: context.body.complete,
    )
    try:
        told = await attempts.run(lease, partial(ask, attempts))
    finally:
        context.tried_on = attempts.tried
    if not isinstance(told, HeldAnswer):
        return told
    return await response_relay.run(told, _once(told.body), ignore_activity, NO_USE)


def attempts_of(
    context: RequestContext,
    plan: Relay | Observe | Wait,
    *,
    may_repeat: bool,
    can_repeat: Callable[[], bool],
) -> Attempts:
    """Return what follows a request from node to node; see `Attempts`."""

    async def lease_next(tried: TriedOn) -> Lease | None:
        context.tried_on = tried
        return await context.served.lease_next(context, plan)

    return Attempts(
        context.tried_on,
        lease_next,
        may_repeat=may_repeat,
        can_repeat=can_repeat,
        request_id=context.request_id,
    )


async def _ask(
    services: Services,
    to_send: UpstreamRequest,
    response_relay: ResponseRelay[ResponseT],
    context: RequestContext,
    plan: Relay | Observe | Wait,
    attempts: Attempts,
    lease: Lease,
) -> ResponseT | HeldAnswer:
    """Send a request to one node, and relay its answer unless others may do better."""
    if lease.node_id is None:
        return await relay_once(services, to_send, lease, response_relay, context, plan)
    asking = _ask_and_relay(
        services,
        to_send,
        lease,
        response_relay,
        context,
        attempts,
        is_read=isinstance(plan, Observe),
    )
    limit_s = first_byte_limit_s(services, lease, context, plan)
    return await run_on_node(lease, response_relay, context, asking, limit_s)


async def run_on_node(
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    context: RequestContext,
    serving: Coroutine[Any, Any, ResponseT | T],
    limit_s: float | None = None,
) -> ResponseT | T:
    """Serve a request under the lease of a node, as `run_under_lease` does.

    An answer that breaks off counts against the node. What fails because the client has
    left does not: it raises `ConnectionResetError`.
    """
    context.node = lease.node_id or ""
    try:
        return await run_under_lease(lease, response_relay, context, serving, limit_s)
    except UpstreamError as error:
        if not response_relay.has_client:
            raise ConnectionResetError("the client has left") from error
        raise
    finally:
        if response_relay.was_lost and not lease.was_cut:
            lease.failed("broke off in the middle of an answer")


async def _ask_and_relay(
    services: Services,
    to_send: UpstreamRequest,
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    context: RequestContext,
    attempts: Attempts,
    *,
    is_read: bool,
) -> ResponseT | HeldAnswer:
    """Send a request; hold the answer back if it could be better, or relay it."""
    if not lease.serves_all:
        to_send = in_our_name(EXECUTE, to_send.body, context.agent)
    asked = await services.relay.ask(to_send, lease.upstream, lease.mark_sent)
    async with asked as answer:
        held = await hold(answer)
        if isinstance(held, HeldAnswer):
            return held
        attempts.note_answer(lease, answer.status, is_read=is_read)
        touch, use = note_answer(answer, lease, context, is_read=is_read)
        if held is not None:
            return await response_relay.run(answer, held, touch, use)
        return await response_relay.pour(answer, touch, use)


def _may_repeat(context: RequestContext) -> bool:
    """Tell whether a request may be sent again though a node may have begun with it."""
    is_read = context.route.kind in _READS or context.method in _SAFE
    return is_read or context.may_repeat


def first_byte_limit_s(
    services: Services, lease: Lease, context: RequestContext, plan: object
) -> float:
    """Return how long a node may take until its answer begins, in seconds.

    An answer that is no stream begins when all of it is there, so it gets longer.
    """
    timeout_s = services.node_timeout_s
    route = context.route
    if route.streams is not Streams.NEVER and not wants_stream(route, look(context)):
        timeout_s *= UNSTREAMED
    limit_s = lease.first_byte_limit_s(context.model, timeout_s)
    if isinstance(plan, Observe) and plan.limit_s is not None:
        return min(limit_s, plan.limit_s)
    return limit_s


async def _once(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data
