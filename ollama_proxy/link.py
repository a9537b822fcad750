"""The private link to an instance: it proves who it is before it sees a prompt.

The proxy speaks only to a server that shows what the link demands, so a stranger
on a reused address learns nothing. `ollama_proxy.authority` makes links whose
servers have a certificate of their own.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

MARK = "X-Ollama-Proxy-Guard"
"""The header by which a guard marks the answers of its Ollama."""

GUARD_TOKEN = "X-Ollama-Proxy-Token"  # noqa: S105 - a header's name
"""The header for a guard's token where a gateway wants ``Authorization``."""


@dataclass(frozen=True, slots=True)
class Link:
    """How an instance is spoken to, besides its address.

    ``token`` goes out as ``Authorization: Bearer``, in place of the client's own.
    ``server_name`` is what its certificate must name, ``context`` whom to trust;
    without these, the address and the system's authorities decide.
    ``headers`` go out with every request, in place of the client's own: a second token
    for a guard behind a platform's gateway, say. ``is_marked``: every answer of its
    Ollama carries `MARK`, so one without it is the gateway's own. ``is_configured``: a
    person asked for it, who knows whether there is a gateway; ``settings`` are those
    that its credentials come from.
    """

    token: str = field(default="", repr=False)
    server_name: str | None = None
    context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_marked: bool = False
    is_configured: bool = False
    settings: tuple[str, ...] = ()


class ConnectionOptions(TypedDict, total=False):
    """What aiohttp's client needs to know of a link, per request."""

    ssl: ssl.SSLContext | bool
    server_hostname: str | None


def connection_options(link: Link | None) -> ConnectionOptions:
    """Return how to connect to a server over its link, if it has one."""
    if link is None:
        return {}
    return {"ssl": link.context or True, "server_hostname": link.server_name}


def credentials(link: Link | None) -> dict[str, str]:
    """Return the headers by which the server knows the proxy."""
    if link is None:
        return {}
    if not link.token:
        return dict(link.headers)
    return {"Authorization": f"Bearer {link.token}", **link.headers}


def secrets_of(link: Link | None) -> set[str]:
    """Return what a server may not be quoted with: it may say what it was sent."""
    values = credentials(link).values()
    return {word for value in values for word in (value, value.rpartition(" ")[2])}


def is_foreign(link: Link | None, answer: Mapping[str, str]) -> bool:
    """Tell whether an answer with these headers is not the instance's own."""
    return link is not None and link.is_marked and MARK not in answer
