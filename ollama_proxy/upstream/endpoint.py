"""Describe the private link to an instance, which proves itself before any prompt.

The proxy speaks only to a server that shows what the link demands, so a stranger
on a reused address learns nothing. `ollama_proxy.upstream.certificates` makes links
whose servers have a certificate of their own.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from ollama_proxy.core.http.headers import GUARD_HEADER


@dataclass(frozen=True, slots=True)
class Link:
    """Describes how an instance is spoken to, besides its address.

    ``token`` goes out as ``Authorization: Bearer``, in place of the client's own.
    ``server_name`` is what its certificate must name, ``context`` whom we trust;
    without these, the address and the system's authorities decide.
    ``headers`` go out with every request, in place of the client's own: a second token
    for a guard behind a platform's gateway, say. ``is_marked``: every answer of its
    Ollama carries `GUARD_HEADER`, so one without it is the gateway's own.
    ``is_configured``: the settings name the server, and say if it is a gateway;
    ``settings`` are those that its credentials come from.
    """

    token: str = field(default="", repr=False)
    server_name: str | None = None
    context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_marked: bool = False
    is_configured: bool = False
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Upstream:
    """Describes the Ollama server of an instance.

    ``url`` is its base without a trailing slash; ``link`` how it and the proxy
    know each other, None on a machine or network of one's own. ``is_gateway``: what
    listens there passes requests on to the server; whatever has a link does, unless a
    person configured it.
    ``setting`` is where a person wrote the URL, if one did: it is named when the
    server can't be asked.
    """

    url: str
    link: Link | None = None
    is_gateway: bool = False
    setting: str = ""

    @property
    def has_gateway(self) -> bool:
        """Tell whether a gateway may end an answer that its server broke off."""
        return self.is_gateway or self.is_guarded

    @property
    def is_guarded(self) -> bool:
        """Tell whether the backend made the link, rather than a person's settings."""
        return self.link is not None and not self.link.is_configured


class ConnectionOptions(TypedDict, total=False):
    """Holds what aiohttp's client needs to know of a link, per request."""

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


def is_gateway_response(link: Link | None, answer: Mapping[str, str]) -> bool:
    """Tell whether an answer with these headers is not the instance's own."""
    return link is not None and link.is_marked and GUARD_HEADER not in answer
