"""What is known of one request while it is handled: for its log line and metric."""

import random
from dataclasses import dataclass

from ollama_proxy.core.ollama.load_wish import LoadWish, load_wish_of
from ollama_proxy.core.ollama.routes import BodyFields, Route


@dataclass(slots=True)
class RequestContext:
    """One request on its way through the proxy; ``agent`` is its client's program.

    ``joins``: it may wait for an instance that others woke, and wakes none itself.
    """

    request_id: str
    route: Route
    path: str
    agent: str
    outcome: str = "refused"
    wait_s: float = 0.0
    joins: bool = False
    load: LoadWish | None = None

    @property
    def model(self) -> str | None:
        """The model that is to be in memory, if any."""
        return self.load.model if self.load is not None else None

    def note_wanted(self, fields: BodyFields) -> None:
        """Take note of the model that is to be loaded, and how."""
        self.load = load_wish_of(self.route, fields)

    def abandon(self) -> None:
        """Take note that the client left, unless it was reset for a fault of ours."""
        if self.outcome != "broken":
            self.outcome = "abandoned"


def draw_request_id() -> str:
    """Return an id for a request, for its log line and its errors."""
    return f"req_{random.getrandbits(96):024x}"
