"""One request handed to an instance under a lease, and its answer handed back."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from ollama_proxy.base.errors import UpstreamError
from ollama_proxy.core.ollama.activity import watch
from ollama_proxy.core.ollama.routes import ColdAnswer, Route
from ollama_proxy.fleet.pool import Lease, Pool
from ollama_proxy.serving.cold_answers import ColdAnswers
from ollama_proxy.serving.extra_routes import ExtraRoutes
from ollama_proxy.serving.hold import HoldPolicy
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.request_body import BodyBudget
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.serving.response_relay import ResponseRelay, ResponseT
from ollama_proxy.serving.short_circuit import ReadableBody, ShortCircuit
from ollama_proxy.serving.status import Status
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.loop_mark import LoopMark
from ollama_proxy.upstream.request import UpstreamRequest

_READ_TIMEOUT_S = 5.0
_PATIENT = frozenset({ColdAnswer.CLOUD, ColdAnswer.ACCOUNT, ColdAnswer.NOT_FOUND})


def ignore_activity() -> None:
    """Do nothing: a read is no use of an instance."""


@dataclass(frozen=True, slots=True)
class Services:
    """What every way of serving a request stands on.

    ``stall_s`` is how long a client may send or take nothing.
    """

    pool: Pool
    relay: UpstreamClient
    mark: LoopMark
    answers: ColdAnswers
    status: Status
    spared: ShortCircuit
    budget: BodyBudget
    hold: HoldPolicy
    metrics: Metrics
    extra_routes: ExtraRoutes
    stall_s: float


async def relay_request(
    services: Services,
    to_send: UpstreamRequest,
    body: ReadableBody,
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    context: RequestContext,
    touch: Callable[[], None],
) -> ResponseT:
    """Send a request and hand its answer over; raises `UpstreamError` without one."""
    async with await services.relay.ask(to_send, lease.upstream) as answer:
        lease.lift_limit()
        services.extra_routes.heard(
            context.route, to_send.method, context.path, answer.status
        )
        services.spared.hear(context, body, answer)
        context.outcome = "relayed"
        use = watch(context.route.name, answer, lease)
        return await response_relay.pour(answer, touch, use)


async def run_under_lease(
    lease: Lease,
    response_relay: ResponseRelay[ResponseT],
    serving: Coroutine[Any, Any, ResponseT],
    *,
    limit_s: float | None = None,
) -> ResponseT:
    """Serve a request under a lease, which ends with it.

    A lease that is cut, because its instance was lost, ends the request; so does an
    instance that says nothing for ``limit_s``. Raises `UpstreamError` if no answer
    has begun by then.
    """
    with lease:
        try:
            async with lease.until_cut(limit_s):
                return await serving
        except TimeoutError as error:
            if response_relay.response is not None:
                return await response_relay.abort_stream(error)
            message = (
                "the instance was lost"
                if lease.was_cut
                else "the instance says nothing"
            )
            raise UpstreamError(message, arrived=True) from error


def read_limit_s(route: Route) -> float | None:
    """Return how long an instance may take to begin the answer to a mere read."""
    return None if route.asleep in _PATIENT else _READ_TIMEOUT_S
