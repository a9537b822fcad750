"""Carry out the plans that need an instance: the half that both servers share."""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from ollama_proxy.base.errors import UpstreamError
from ollama_proxy.core.ollama.activity import watch
from ollama_proxy.core.plans import Observe, Relay, Wait
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.serving.body_budget import BodyBudget
from ollama_proxy.serving.extra_routes import ExtraRoutes
from ollama_proxy.serving.fleet_view import FleetView
from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.own_replies import OwnReplies
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.serving.response_relay import ResponseRelay, ResponseT
from ollama_proxy.serving.unknown_models import UnknownModels
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.loop_mark import LoopMark
from ollama_proxy.upstream.request import UpstreamRequest


def ignore_activity() -> None:
    """Do nothing: a read does not reset the idle timer."""


@dataclass(frozen=True, slots=True)
class Services:
    """Holds the parts that every way of serving a request needs.

    ``stall_s``: how long a client may neither send nor read a byte.
    """

    pool: Pool
    fleet: FleetView
    relay: UpstreamClient
    mark: LoopMark
    replies: OwnReplies
    unknown: UnknownModels
    budget: BodyBudget
    hold: HoldPolicy
    metrics: Metrics
    extra_routes: ExtraRoutes
    stall_s: float

    def lease(self, plan: Relay | Observe) -> Lease | None:
        """Lease the instance that a plan counts on; None if none is ready now."""
        is_use = isinstance(plan, Relay)
        return self.pool.try_lease() if is_use else self.pool.observe()

    def admit(self, context: RequestContext, wait: Wait) -> None:
        """Let a request begin to wait, and remember for whose sake it does."""
        if context.admitted is None and wait.seeks:
            self.unknown.note_wake(wait.seeks)
        context.admit(wait)

    def learn(self, context: RequestContext, answer: Any) -> None:
        """Learn from an instance's own answer which routes and models it has."""
        self.extra_routes.heard(
            context.route, context.method, context.path, answer.status
        )
        self.unknown.learn(context, answer)


async def relay_request(
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
    this raises `UpstreamError`.
    """
    observes = isinstance(plan, Observe)
    limit_s = plan.limit_s if isinstance(plan, Observe) else None
    try:
        async with (
            lease.until_cut(limit_s),
            await services.relay.ask(to_send, lease.upstream) as answer,
        ):
            lease.lift_limit()
            services.learn(context, answer)
            context.outcome = "relayed"
            use = watch(context.route.name, answer, lease)
            touch = ignore_activity if observes else lease.mark_alive
            return await response_relay.pour(answer, touch, use)
    except TimeoutError as error:
        return await _end_cut(lease, response_relay, error)


async def run_under_lease(
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    serving: Coroutine[Any, Any, ResponseT],
) -> ResponseT:
    """Serve in another way under a lease that may be cut, as `relay_request` does."""
    try:
        async with lease.until_cut():
            return await serving
    except TimeoutError as error:
        return await _end_cut(lease, response_relay, error)


async def _end_cut(
    lease: Lease, response_relay: ResponseRelay[ResponseT], error: TimeoutError
) -> ResponseT:
    """End an answer that has begun; raises `UpstreamError` if none has."""
    if response_relay.response is not None:
        return await response_relay.abort_stream(error)
    message = "the instance was lost" if lease.was_cut else "the instance says nothing"
    raise UpstreamError(message, arrived=True) from error
