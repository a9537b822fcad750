"""Decide which requests may pass: by ``Origin``, by ``Host``, and by added rules.

`AccessControl.check` is called by both servers for each request, before anything is
served, woken or counted as use. It is no aiohttp middleware, since those see only the
requests that aiohttp's server reads, a small part of all.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ollama_proxy.core.access.client_address import NO_PROXIES, TrustedProxies
from ollama_proxy.core.access.cors import (
    CorsPolicy,
    Headers,
    host_name,
    is_same_origin,
)
from ollama_proxy.core.access.facts import AccessFacts, HeaderLines
from ollama_proxy.core.access.hosts import HostPolicy
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.routes import allow_header

_EXEMPT = frozenset({("GET", "/healthz")})
"""Requests that added rules do not apply to, besides preflights of allowed origins.

A container's health check has no key, and a browser sends none with a preflight.
"""

_MAPPED = "::ffff:"
"""Begins an IPv4 address that connected to a socket for IPv6 and IPv4."""

AccessRule: TypeAlias = Callable[[AccessFacts], Reply | None]
"""Returns the refusal of a request; None if it may pass."""

Identify: TypeAlias = Callable[[AccessFacts], Reply | Caller]
"""Returns the caller of a request, or its refusal."""


def take_anyone(facts: AccessFacts) -> Caller:
    """Return a caller by address alone: no key is asked for."""
    return Caller(facts.peer)


class AccessControl:
    """Holds the rules of one proxy; without ``hosts`` any ``Host`` is taken.

    ``identify`` returns the caller, once nothing else refuses the request. ``is_on``
    tells whether requests need a key. ``proxies``: the gateways that are trusted to
    name the client's address.
    """

    def __init__(
        self,
        origins: CorsPolicy,
        hosts: HostPolicy | None,
        rules: Sequence[AccessRule] = (),
        identify: Identify = take_anyone,
        is_on: Callable[[], bool] = bool,
        proxies: TrustedProxies = NO_PROXIES,
    ) -> None:
        self._proxies = proxies
        self._identify = identify
        self._is_on = is_on
        self._origins = origins
        self._hosts = hosts
        self._rules = tuple(rules)

    @property
    def hides_credentials(self) -> bool:
        """Tell whether no credential of a client's passes to an instance.

        If requests need no key, those pass that are not of ours.
        """
        return self._is_on()

    def client_address(self, peer: str, headers: HeaderLines) -> str:
        """Return the address of a client, by that of its connection and its headers."""
        if not self._proxies:
            return peer.removeprefix(_MAPPED)
        named = headers.getall("X-Forwarded-For", [])
        return self._proxies.client(peer, named, headers.getall("Forwarded", []))

    def check(self, facts: AccessFacts) -> Reply | Caller:
        """Return the caller of a request, or the response to one that may not pass.

        Preflights are answered here, whether an instance runs or not.
        """
        origin = facts.origin
        if origin and not is_same_origin(origin, facts.host):
            if not self._origins.allows(origin):
                return Reply(403, headers=_allow(facts))
            if facts.method == "OPTIONS":
                preflight = self._origins.preflight_headers(origin)
                return Reply(204, headers=(*preflight, *_allow(facts)))
        if self._hosts is not None and not self._hosts.takes(facts.host):
            return Reply(403, headers=_allow(facts))
        if self._rules and (facts.method, facts.path) not in _EXEMPT:
            for rule in self._rules:
                if (refusal := rule(facts)) is not None:
                    return refusal
        return self._preflight_of_own_page(facts) or self._identify(facts)

    def cors_headers(self, facts: AccessFacts) -> Headers:
        """Return what the answer to an allowed origin carries."""
        origin = facts.origin
        if not origin or is_same_origin(origin, facts.host):
            return ()
        return self._origins.headers(origin) if self._origins.allows(origin) else ()

    def _preflight_of_own_page(self, facts: AccessFacts) -> Reply | None:
        """Answer ``OPTIONS`` under a local name as Ollama does; None for all else."""
        if self._hosts is None or facts.method != "OPTIONS":
            return None
        is_address = self._hosts.is_own(host_name(facts.host))
        return None if is_address else Reply(204, headers=_allow(facts))


def _allow(facts: AccessFacts) -> Headers:
    """Return the ``Allow`` header that gin sends for a method a path does not take."""
    allowed = allow_header(facts.path)
    is_taken = facts.method in allowed.split(", ")
    return (("Allow", allowed),) if allowed and not is_taken else ()
