"""The private link to an instance: it proves who it is before it sees a prompt.

The proxy speaks only to a server that shows what the link demands, so a stranger
on a reused address learns nothing. `ollama_proxy.authority` makes links whose
servers have a certificate of their own.
"""

import ssl
from dataclasses import dataclass, field
from typing import TypedDict


@dataclass(frozen=True, slots=True)
class Link:
    """How an instance is spoken to, besides its address.

    ``token`` goes out as ``Authorization: Bearer``, in place of the client's own.
    ``server_name`` is what its certificate must name, ``context`` whom to trust;
    without these, the address and the system's authorities decide.
    """

    token: str = field(repr=False)
    server_name: str | None = None
    context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)


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
    return {} if link is None else {"Authorization": f"Bearer {link.token}"}
