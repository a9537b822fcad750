"""Name the plans for a request: what `ollama_proxy.core.dispatch.decide` returns.

Values only. What it looks at is in `ollama_proxy.core.request_facts`.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TypeAlias

from ollama_proxy.core.access.decision import KeyRefusal
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ollama.native_refusals import Refusal
from ollama_proxy.core.ollama.request_fields import BodyFields


class Reading(IntEnum):
    """Says how much of a body a server was asked to read into memory."""

    NOTHING = 0
    SMALL = 1
    WHOLE = 2


class Known(Enum):
    """Names the responses that need no instance.

    - ``LOOP``: the request passed this proxy before.
    - ``ROOT``: "Ollama is running".
    - ``COLD``: an answer from the catalogue.
    - ``HIDDEN``: there is no such model, for this key.
    - ``DONE``: there is nothing to unload or to load.
    - ``UNWOKEN``: no instance is ready, and the settings forbid this request to start
      one.
    """

    LOOP = "loop"
    ROOT = "root"
    COLD = "cold"
    HIDDEN = "hidden"
    DONE = "done"
    UNWOKEN = "unwoken"


@dataclass(frozen=True, slots=True)
class Say:
    """Plan: answer without an instance; ``fields``: of the body."""

    what: Known
    fields: BodyFields | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Plan: answer what Ollama would, without an instance, in its words."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Plan: answer 503, there is no instance; ``problem`` is this request's own."""

    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Plan: read the body into memory, as far as limits allow, and decide again."""

    upto: Reading


@dataclass(frozen=True, slots=True)
class Choose:
    """Plan: have the request served by a pool, and decide again.

    ``only``: by that instance, which alone has what the request needs. ``model``: the
    model that it is for, "" if there is none.
    """

    pool: str
    only: LaunchId | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Seek:
    """Plan: read the body until its model is seen, as far as limits allow."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Plan: answer a list from all instances of a pool; None: of every pool."""

    pool: str | None = None


@dataclass(frozen=True, slots=True)
class Observe:
    """Plan: relay to the ready instance without resetting its idle timer.

    ``limit_s``: limit until its response begins; None: no limit.
    """

    limit_s: float | None


@dataclass(frozen=True, slots=True)
class Relay:
    """Plan: relay to the ready instance; its answer may be use."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Plan: start an instance, wait for it as long as granted, then relay.

    ``joins``: wait for a launch that others caused, and start none. ``seeks``: an
    unknown model for which an instance is started this once.
    """

    fields: BodyFields | None = None
    joins: bool = False
    seeks: str = ""


@dataclass(frozen=True, slots=True)
class Admit:
    """Plan: have the request's key admit it to its work, and decide again."""

    work: Work


@dataclass(frozen=True, slots=True)
class Deny:
    """Plan: answer that the request's key does not allow it."""

    refusal: KeyRefusal


Plan: TypeAlias = (
    Say
    | Refuse
    | Unavailable
    | Read
    | Choose
    | Seek
    | Gather
    | Observe
    | Relay
    | Wait
    | Admit
    | Deny
)
