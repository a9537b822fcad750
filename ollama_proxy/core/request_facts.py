"""Describe a request, and what may serve it, for `dispatch`: what its plan depends on.

Values and protocols only; the plans are in `ollama_proxy.core.plans`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from ollama_proxy.core.access.keys import Key
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ollama.model_fate import Fate
from ollama_proxy.core.ollama.request_fields import BodyFields, Need
from ollama_proxy.core.ollama.routes import Family, Route
from ollama_proxy.core.plans import Reading, Wait


class ReadableBody(Protocol):
    """Gives a view of a body, as far as it is in memory."""

    @property
    def head(self) -> bytes:
        """Return the part that was read into memory so far."""

    @property
    def complete(self) -> bool:
        """Tell whether that is all."""

    @property
    def encoding(self) -> str:
        """Return how it is compressed, say; empty if it is not."""


class PoolChoices(Protocol):
    """Tells which pool serves what, and which instance alone has a model or a file."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the pools, in the order of the settings."""

    @property
    def uploads(self) -> str:
        """Return the pool whose instance takes files."""

    def of_model(self, model: str) -> str | None:
        """Return the pool of a model; None if no pool serves it."""

    def of_route(self, method: str, path: str) -> str | None:
        """Return the pool that answered a route outside of Ollama's table."""

    def awake(self) -> str | None:
        """Return the first pool that has a ready instance."""

    def instance_of(self, pool: str, model: str) -> LaunchId | None:
        """Return the ready instance that alone has a model that was created on it."""

    def instance_with(self, pool: str, digests: Collection[str]) -> LaunchId | None:
        """Return the ready instance that files go to, or that has all of these."""


class Fleet(Protocol):
    """Tells what the pool of a request, its lists and the settings say now."""

    @property
    def name(self) -> str:
        """Return the name of the pool."""

    @property
    def pools(self) -> PoolChoices:
        """Return what the choice of a pool goes by."""

    @property
    def has_several(self) -> bool:
        """Tell whether several instances make up its lists."""

    @property
    def is_ready(self) -> bool:
        """Tell whether an instance serves."""

    @property
    def version(self) -> str:
        """Return the version of the Ollama that would be asked; "" if unknown."""

    @property
    def spared(self) -> frozenset[Need]:
        """Return `Need.LOAD` and `Need.CLOUD`, if the settings let these wake none."""

    @property
    def read_limit_s(self) -> float:
        """Return how long an instance may take to begin the answer to a mere read."""

    @property
    def reads_bodies(self) -> bool:
        """Tell whether some rule of ``ignores`` reads the limit of tokens in a body."""

    @property
    def ignores_some(self) -> bool:
        """Tell whether the settings ignore any request as use."""

    def ignores(
        self, agent: str, path: str, family: Family, fields: BodyFields | None
    ) -> bool:
        """Tell whether the settings ignore a request as use."""

    def fate(self, model: str) -> Fate:
        """Return the decision on a request for a model, by its name."""

    def next_look_s(self) -> float:
        """Return in how many seconds an unknown name may wake again."""


class _NoBody:
    """Holds no body, and is complete."""

    head = b""
    complete = True
    encoding = ""


NO_BODY = _NoBody()
"""The body of a request that has none."""


@dataclass(slots=True)
class Facts:
    """Holds the facts of a request; a server adds the results of its plans.

    - ``path``: raw, without query. ``agent``: the User-Agent.
    - ``objection``: why the request must not be relayed.
    - ``reading``: how much of the body was requested.
    - ``tried``: the request was sent to an instance, or none was reachable.
      ``problem``: what failed there. ``may_be_done``: the instance may have carried the
      request out.
    - ``may_wait_s``: how long the request may still wait. ``admitted``: the `Wait` that
      has begun. ``waited``: it ended without an instance.
    - ``is_routed``: its pool is chosen, or there is no choice. ``named_pool``: the pool
      that it names. ``sought``: the body was read to find the model. ``only``: the
      launch of the one instance that can serve it. ``seen_model``: its model, if that
      was looked for.
    - ``key``: None if it needed none. ``is_admitted``: its key need not be asked any
      more. ``may_wake``: its key lets it start an instance, and keep it.
    - ``query``, ``content_type``: as sent, where the body is a form.
    """

    method: str
    path: str
    agent: str
    route: Route
    body: ReadableBody = NO_BODY
    objection: str | None = None
    reading: Reading = Reading.NOTHING
    tried: bool = False
    problem: str | None = None
    may_be_done: bool = False
    may_wait_s: float = 0.0
    admitted: Wait | None = None
    waited: bool = False
    is_routed: bool = True
    named_pool: str = ""
    sought: bool = False
    only: LaunchId | None = None
    seen_model: str = ""
    key: Key | None = None
    is_admitted: bool = True
    may_wake: bool = True
    query: str = ""
    content_type: str = ""

    @property
    def sees_some(self) -> bool:
        """Tell whether its key may use some models only."""
        return self.key is not None and bool(self.key.rights.models)

    def note_failure(self, problem: str, *, may_be_done: bool) -> None:
        """Record that an instance sent no response."""
        self.tried, self.problem, self.may_be_done = True, problem, may_be_done
