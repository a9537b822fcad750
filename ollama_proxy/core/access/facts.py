"""Hold what is looked at to decide whether a request may pass."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from ollama_proxy.core.ollama.routes import Kind, Route

SentField: TypeAlias = tuple[str, str]
"""A header as it was sent: its name in lower case, and its value."""


class HeaderView(Protocol):
    """Reads the headers of a request, by names of any case."""

    def get(self, name: str, default: str, /) -> str:
        """Return the first value of a header, or ``default``."""

    def __iter__(self) -> Iterator[str]:
        """Return the names of the headers that pass through the proxy."""


class HeaderLines(Protocol):
    """Reads headers of which there may be several lines, by names of any case."""

    def getall(self, name: str, default: list[str], /) -> list[str]:
        """Return the values of a header in the order of its lines, or ``default``."""


class AccessFacts(NamedTuple):
    """Holds what a rule may look at; not the body, which may not have arrived yet.

    ``peer``: address of the client, "" if unknown: of the connection's other end, or
    what trusted gateways in between say. ``path``: raw, without query. ``origin``: ""
    if the request has no Origin header. ``sent``: the headers that may hold a key, all
    of them; see `ollama_proxy.gateway.credentials`.
    """

    peer: str
    method: str
    path: str
    route: Route
    host: str
    origin: str
    headers: HeaderView
    sent: Sequence[SentField] = ()

    @property
    def kind(self) -> Kind:
        """Return what the request needs."""
        return self.route.kind
