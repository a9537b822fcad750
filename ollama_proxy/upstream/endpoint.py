"""Describe the private link to an instance, which authenticates before any prompt.

The proxy sends requests only to a server that presents what the link demands, so a
stranger on a reused address learns nothing. `ollama_proxy.upstream.certificates` makes
links whose servers have a certificate of their own.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from ollama_proxy.core.http.headers import GUARD_HEADER


@dataclass(frozen=True, slots=True)
class Link:
    """Describes how to authenticate to an instance, and how to verify it.

    - ``token``: sent as ``Authorization: Bearer``, replacing the client's header.
    - ``server_name``: the name that its certificate must have; ``context``: the trusted
      authorities. Without these, the address and the system's authorities decide.
    - ``headers``: sent with every request, replacing the client's, for example a second
      token for a guard behind a platform's gateway.
    - ``is_marked``: every response of its Ollama carries `GUARD_HEADER`, so one without
      it was made by the gateway.
    - ``is_configured``: the settings name the server, and whether it is a gateway.
    - ``settings``: names of the settings that hold the credentials.
    - ``tunnel``: the node that opens connections to us, since we can't open one to it.
    """

    token: str = field(default="", repr=False)
    server_name: str | None = None
    context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_marked: bool = False
    is_configured: bool = False
    settings: tuple[str, ...] = ()
    tunnel: str = ""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Describes the Ollama server of an instance.

    - ``url``: its base, without a trailing slash.
    - ``link``: how the proxy and the server authenticate; None on a private machine or
      network.
    - ``is_gateway``: a gateway listens there and forwards requests to the server. Also
      true for any link, unless a person configured it.
    - ``setting``: the setting with the URL, if there is one; named when the server
      can't be reached.
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
    """Return the secrets to mask in quotes of a server, which may repeat them."""
    values = credentials(link).values()
    return {word for value in values for word in (value, value.rpartition(" ")[2])}


def is_gateway_response(link: Link | None, answer: Mapping[str, str]) -> bool:
    """Tell whether an answer with these headers is not the instance's own."""
    return link is not None and link.is_marked and GUARD_HEADER not in answer
