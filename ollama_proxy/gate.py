"""The gate before every route: who may ask at all, by ``Origin`` and ``Host``.

Answers preflights itself, awake and asleep, and gives every answer that passes
the headers a browser needs to show it, our own 503s included.
"""

import functools
import socket
from dataclasses import dataclass

import psutil
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from ollama_proxy.client_request import raw_path
from ollama_proxy.origins import (
    Headers,
    OriginRules,
    host_name,
    is_local_name,
    is_own_address,
    is_same_origin,
)
from ollama_proxy.routing import allow_header

_LONGEST_ADDRESS = 64
"""Characters of an address of this machine, with its zone; clients may send 1 MB."""

CORS = web.RequestKey("cors", tuple)
"""Key under which a request keeps the headers that its answer gets."""


@dataclass(frozen=True, slots=True)
class HostRules:
    """Which ``Host`` is taken by a server that listens on loopback only."""

    machine: str
    addresses: frozenset[str]

    @classmethod
    def of_this_machine(cls) -> "HostRules":
        """Return the rules with this machine's own name and addresses."""
        found = psutil.net_if_addrs().values()
        addresses = {address.address for interface in found for address in interface}
        return cls(socket.gethostname(), frozenset(addresses))

    def takes(self, host: str) -> bool:
        """Tell whether a request with this ``Host`` is taken."""
        name = host_name(host)
        return _is_own(name, self.addresses) or is_local_name(name, self.machine)


def guard(origins: OriginRules, hosts: HostRules | None) -> Middleware:
    """Return the gate; without ``hosts`` any host is taken, as on a public bind."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN, "")
        host = request.headers.get(hdrs.HOST, "")
        if origin and not is_same_origin(origin, host):
            if not origins.allows(origin):
                return _empty(403, _allow_header(request))
            if request.method == hdrs.METH_OPTIONS:
                allow = _allow_header(request)
                return _empty(204, (*origins.preflight_headers(origin), *allow))
            request[CORS] = origins.headers(origin)
        if hosts is not None and (refusal := _check_host(request, hosts, host)):
            return refusal
        return await handler(request)

    return middleware


def _check_host(
    request: web.Request, hosts: HostRules, host: str
) -> web.StreamResponse | None:
    if not hosts.takes(host):
        return _empty(403, _allow_header(request))
    is_preflight = request.method == hdrs.METH_OPTIONS
    if not is_preflight or _is_own(host_name(host), hosts.addresses):
        return None
    return _empty(204, _allow_header(request))


def _allow_header(request: web.Request) -> Headers:
    """Return what gin's router says of a method that it does not take, if so."""
    allowed = allow_header(raw_path(request))
    is_taken = request.method in allowed.split(", ")
    return (("Allow", allowed),) if allowed and not is_taken else ()


def _is_own(name: str, addresses: frozenset[str]) -> bool:
    """Tell whether a name is an own address; what is long can't be, but for a zone."""
    if len(name) > _LONGEST_ADDRESS:
        name, _, _zone = name.partition("%")
        if len(name) > _LONGEST_ADDRESS or ":" not in name:
            return False
    return _remembered(name, addresses)


# It is asked for with each request, and reading an address takes 3 µs.
_remembered = functools.lru_cache(maxsize=256)(is_own_address)


def _empty(status: int, headers: Headers = ()) -> web.Response:
    reply = web.Response(status=status)
    for name, value in headers:
        reply.headers.add(name, value)
    return reply


def add_cors_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Give an answer the headers of its request's origin."""
    for name, value in request.get(CORS, ()):
        response.headers.add(name, value)
