"""Carry out the plans that need an instance: the half that both servers share."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import UpstreamError
from ollama_proxy.core.ollama.activity import UseWatch, watch
from ollama_proxy.core.plans import Observe, Relay, Wait
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.gateway.key_limits import KeyLimits
from ollama_proxy.gateway.usage_book import UsageBook
from ollama_proxy.serving.active_requests import ActiveRequests
from ollama_proxy.serving.body_budget import BodyBudget
from ollama_proxy.serving.interruptions import take_interruption
from ollama_proxy.serving.key_settling import begin_metering
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.model_lists import ModelLists
from ollama_proxy.serving.pool_map import PoolMap
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.serving.response_relay import ResponseRelay, ResponseT
from ollama_proxy.upstream.client import Answer, UpstreamClient
from ollama_proxy.upstream.loop_mark import LoopMark
from ollama_proxy.upstream.request import UpstreamRequest

T = TypeVar("T")


def ignore_activity() -> None:
    """Do nothing: a read does not reset the idle timer."""


@dataclass(frozen=True, slots=True)
class Services:
    """Holds the parts that every way of serving a request needs, whatever its pool.

    ``stall_s``: how long a client may neither send nor read a byte.
    ``node_timeout_s``: how long a node may take until its answer begins, if the model
    is in its memory.
    """

    pools: PoolMap
    lists: ModelLists
    relay: UpstreamClient
    mark: LoopMark
    budget: BodyBudget
    metrics: Metrics
    active: ActiveRequests
    limits: KeyLimits
    usage: UsageBook
    clock: Clock
    stall_s: float
    node_timeout_s: float


async def relay_once(
    services: Services,
    to_send: UpstreamRequest,
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    context: RequestContext,
    plan: Relay | Observe | Wait,
) -> ResponseT:
    """Send a request under a lease, and relay the response.

    The request ends if the lease is cut (its instance was lost) or if the instance
    sends nothing for the plan's ``limit_s``. If the response has not begun by then,
    this raises `UpstreamError`. A response that has begun ends with the reason if the
    request is interrupted.
    """
    is_read = isinstance(plan, Observe)
    limit_s = plan.limit_s if isinstance(plan, Observe) else None
    asking = _ask_and_relay(
        services, to_send, lease, response_relay, context, is_read=is_read
    )
    return await run_under_lease(lease, response_relay, context, asking, limit_s)


async def _ask_and_relay(
    services: Services,
    to_send: UpstreamRequest,
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    context: RequestContext,
    *,
    is_read: bool,
) -> ResponseT:
    """Send a request, and relay the response once it begins."""
    asked = await services.relay.ask(to_send, lease.upstream, lease.mark_sent)
    async with asked as answer:
        touch, use = note_answer(answer, lease, context, is_read=is_read)
        return await response_relay.pour(answer, touch, use)


def note_answer(
    answer: Answer, lease: Lease, context: RequestContext, *, is_read: bool
) -> tuple[Callable[[], None], UseWatch]:
    """Take in that an answer begins; return what `ResponseRelay.pour` tells of it."""
    lease.lift_limit()
    context.served.learn(context, answer, lease.launch_id)
    context.outcome = "relayed"
    use = watch(context.route.name, answer, lease)
    return ignore_activity if is_read else lease.mark_alive, use


async def run_under_lease(
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    context: RequestContext,
    serving: Coroutine[Any, Any, ResponseT | T],
    limit_s: float | None = None,
) -> ResponseT | T:
    """Serve a request under a lease that may be cut, and at the cost of its key.

    ``limit_s``: limit until `Lease.lift_limit` is called. Ends as `relay_once` does.
    """
    meter = response_relay.meter = begin_metering(context)
    permit = context.permit
    if permit is not None and permit.expense is not None:
        permit.enter(lease.launch_id)
    response: ResponseT | T
    try:
        async with lease.until_cut(limit_s):
            response = await serving
    except TimeoutError as error:
        response = await _end_cut(lease, response_relay, error, limit_s)
    except asyncio.CancelledError as error:
        return await _end_interrupted(context, response_relay, error)
    finally:
        if meter is not None:
            meter.stop(asyncio.get_running_loop().time(), was_sent=lease.was_sent)
        if permit is not None and permit.expense is not None:
            permit.leave()
    context.outcome = "relayed"
    return response


async def _end_cut(
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    error: TimeoutError,
    limit_s: float | None,
) -> ResponseT:
    """End an answer that has begun; raises `UpstreamError` if none has.

    Another node may still answer after heartbeats.
    """
    is_open = lease.node_id is not None and not response_relay.is_passing
    if response_relay.response is not None and not is_open:
        return await response_relay.abort_stream(error)
    message = f"the instance sent nothing for {limit_s or 0.0:g} s"
    if lease.was_cut:
        message = "the instance was lost"
    raise UpstreamError(message, arrived=lease.was_sent) from error


async def _end_interrupted(
    context: RequestContext,
    response_relay: ResponseRelay[ResponseT],
    error: asyncio.CancelledError,
) -> ResponseT:
    """End an answer that has begun with the reason; raises the error if none has.

    The error is raised too if it is the client that left.
    """
    if response_relay.response is None or not take_interruption(context):
        raise error
    message = context.interrupted_by
    return await response_relay.interrupt(message, error)
