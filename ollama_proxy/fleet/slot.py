"""Show the executor and the watch the controller whose commands they run."""

from typing import Protocol

from ollama_proxy.core.lifecycle.boot_stages import Timeline
from ollama_proxy.core.lifecycle.events import Event, Failed, Gone, Lost
from ollama_proxy.core.lifecycle.record import Policy, Record
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.upstream.endpoint import Upstream


class Slot(Protocol):
    """Holds the record of one instance, and what is known about the instance now.

    ``upstream``: its address, None before that is known. ``problem``: why it can't be
    reached at the moment. ``notice``: a message for a person. ``driver``: the GPU
    driver that it installed. Empty if there is nothing to report.
    """

    slot: str
    offer: Offer
    policy: Policy
    timeline: Timeline
    upstream: Upstream | None
    problem: str
    notice: str
    driver: str

    @property
    def record(self) -> Record:
        """Return the known and intended state."""

    def apply(self, event: Event) -> None:
        """Let an event change the record; on disk first, then in memory."""

    def end_launch(self, event: Failed | Gone | Lost) -> None:
        """Apply the end of an instance, without secrets, and log its report."""
