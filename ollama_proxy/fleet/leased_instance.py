"""Say what leases need of an instance: one of ours, a server of others, or a node."""

from typing import Protocol

from ollama_proxy.core.lifecycle.events import Event
from ollama_proxy.core.lifecycle.record import LaunchId, Policy, Record
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.upstream.endpoint import Upstream


class LeasedInstance(Protocol):
    """Takes requests while its record says that it is ready.

    - ``slot``: its name. ``upstream``: its address, None if it has none now.
    - ``node_id``: None unless it is a node, which registers itself.
    - ``serves_all``: it takes every request of Ollama; some nodes generate text only.
    - ``use_grain_s``: the step, in seconds, in which its last use is saved.
    """

    slot: str
    offer: Offer
    policy: Policy
    upstream: Upstream | None
    node_id: str | None
    serves_all: bool
    use_grain_s: float

    @property
    def record(self) -> Record:
        """Return the known and intended state."""

    def apply(self, event: Event) -> None:
        """Let an event change the record."""

    def note_use(self, launch_id: LaunchId) -> None:
        """Save that a request is in progress, in case the process ends before it."""

    def mark_alive(self) -> None:
        """Take in that bytes arrived from it."""

    def check_now(self) -> None:
        """Look at it now: it failed a request."""

    def request_failed(self, reason: str) -> None:
        """Take in that a request failed there, by the rules for nodes."""

    def request_answered(self) -> None:
        """Take in that it began an answer that is no failure."""
