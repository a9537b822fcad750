"""Hold one request on its way through the proxy: its facts, log keys and outcome."""

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from ollama_proxy.core.access.keys import NOBODY, Caller
from ollama_proxy.core.demand import Arrival
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.nodes.hub_routes import JOBS
from ollama_proxy.core.ollama.load_wish import LoadWish, load_wish_of
from ollama_proxy.core.ollama.routes import Kind
from ollama_proxy.core.plans import Choose, Wait
from ollama_proxy.core.request_facts import Facts
from ollama_proxy.gateway.permits import Permit
from ollama_proxy.serving.answer_meter import AnswerMeter

TriedOn: TypeAlias = tuple[LaunchId, ...]
"""Names the nodes that have failed a request."""

if TYPE_CHECKING:
    from ollama_proxy.serving.pool_services import PoolServices


class Stage(StrEnum):
    """Names how far a request has come.

    ``ARRIVING``: its body is read, and what becomes of it decided. ``WAITING``: for an
    instance, or for a free slot of one. ``SERVED``: by an instance.
    """

    ARRIVING = "arriving"
    WAITING = "waiting"
    SERVED = "served"


@dataclass(slots=True)
class RequestContext(Facts):
    """Holds the facts of one request, for its response and its log line.

    ``served``: the pool that serves it. ``target``: path and query as the client sent
    them. ``wait_s``: how long the request has waited. ``load``: the load that it needs.
    ``caller``: its key and address. ``permit``: admits a request of a key, and is
    settled at its end; ``is_denied``: its key lacks a right or reached a limit;
    ``meter``: counts what it uses. ``begun_at``: when its task began, in time of the
    event loop. ``arrival``: the request as its pool counts it. ``hides_credentials``:
    an instance gets no credentials. ``interrupted_by``: why we ended it, in words for
    its client. ``tried_on``: the nodes that it was sent to in vain. ``may_repeat``: its
    client has it sent to another node although one may have begun to work on it.
    ``node``: the last one that it was sent to.
    """

    served: "PoolServices" = field(kw_only=True)
    request_id: str = ""
    target: str = ""
    outcome: str = "refused"
    wait_s: float = 0.0
    load: LoadWish | None = None
    caller: Caller = NOBODY
    permit: Permit | None = None
    is_denied: bool = False
    meter: AnswerMeter | None = None
    begun_at: float = 0.0
    stage: Stage = Stage.ARRIVING
    interrupted_by: str = ""
    arrival: Arrival = field(default_factory=Arrival)
    hides_credentials: bool = False
    tried_on: TriedOn = ()
    may_repeat: bool = False
    node: str = ""

    @property
    def model(self) -> str | None:
        """Return the model that has to be in memory, if any."""
        if self.load is not None:
            return self.load.model
        return self.seen_model or None

    @property
    def asked_route(self) -> str:
        """Return the name of the route that its client asked, if we know it."""
        return JOBS if self.route.is_job else self.route.name

    @property
    def takes_slot(self) -> bool:
        """Tell whether it is one of the requests that an instance gets only few of."""
        return self.route.kind is Kind.INFERENCE

    def identify(self, caller: Caller) -> None:
        """Record the caller: what it may, and under which name it counts."""
        key = caller.key
        self.caller, self.key, self.is_admitted = caller, key, key is None
        self.may_wake = key is None or key.rights.may_wake
        self.arrival.client = caller.address if key is None else key.name

    def choose(self, plan: Choose, served: "PoolServices") -> None:
        """Have the request served by a pool, and by one instance of it if it needs to.

        It waits as that pool has it, but for a wait of its own choosing.
        """
        self.is_routed, self.served, self.only = True, served, plan.only
        self.seen_model = plan.model

    def admit(self, wait: Wait) -> None:
        """Record that the request begins to wait, and which model it needs loaded."""
        self.admitted, self.tried = wait, True
        if wait.fields is not None and self.load is None:
            self.load = load_wish_of(self.route, wait.fields)

    def abandon(self) -> None:
        """Set the outcome to `abandoned`, unless it was ended by us already."""
        if self.outcome not in {"broken", "interrupted"}:
            self.outcome = "abandoned"


def draw_request_id() -> str:
    """Return an id for a request, for its log line and its errors."""
    return f"req_{random.getrandbits(96):024x}"
