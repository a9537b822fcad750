"""Take requests to join, and of nodes for new certificates; their texts are secrets."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final, TypeVar

import structlog
from aiohttp import web

from ollama_proxy.base import log
from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.nodes.beat import BeatError
from ollama_proxy.core.nodes.hub_routes import AUTHORITY, JOIN, RENEW
from ollama_proxy.core.nodes.join_request import (
    LONGEST_BODY,
    Authority,
    JoinBodyError,
    read_join_request,
    read_renew_request,
)
from ollama_proxy.hub.beat_access import NodeAccess
from ollama_proxy.hub.joining import Joining, JoinRefusedError
from ollama_proxy.server.admin.answers import json_answer
from ollama_proxy.server.admin.small_body import READ_S, read_small
from ollama_proxy.server.hub.refusals import refused

MOST_READ: Final = 256
"""How many bodies are read at a time, 8 MiB in all: they come from everybody."""

Self = TypeVar("Self")
_Handler = Callable[[Self, web.Request], Awaitable[web.Response]]


def _refusing(handle: _Handler[Self]) -> _Handler[Self]:
    """Return a handler that answers a request that it refuses in words."""

    @wraps(handle)
    async def answer(self: Self, request: web.Request) -> web.Response:
        if "Origin" in request.headers:
            return refused(403, "no web page joins this hub")
        try:
            return await handle(self, request)
        except (JoinRefusedError, BeatError) as error:
            return refused(error.status, str(error))
        except JoinBodyError as error:
            return refused(400, str(error))
        except StoreError as error:
            structlog.get_logger().warning(log.STORE_FAILED, reason=str(error))
            return refused(503, "the hub can't store anything now; ask again")

    return answer


class JoinRoutes:
    """Answers machines that join, and nodes that need a new certificate.

    ``most_read``: how many bodies are read at a time.
    """

    def __init__(
        self, joining: Joining, access: NodeAccess, *, most_read: int = MOST_READ
    ) -> None:
        self._most_read, self._reading = most_read, 0
        self._joining = joining
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; what each needs stands in its request."""
        return [
            web.get(AUTHORITY, self.authority),
            web.post(JOIN, self.join),
            web.post(RENEW, self.renew),
        ]

    async def authority(self, _request: web.Request) -> web.Response:
        """Return the certificate of the hub's authority, which is no secret."""
        return json_answer(Authority(self._joining.authority))

    @_refusing
    async def join(self, request: web.Request) -> web.Response:
        """Let a machine join with its token."""
        asked = read_join_request(await self._body(request))
        return json_answer(self._joining.join(asked, _peer(request)))

    @_refusing
    async def renew(self, request: web.Request) -> web.Response:
        """Give the node with a key a new certificate."""
        key = self._access.key_of(request.headers)
        asked = read_renew_request(await self._body(request))
        return json_answer(self._joining.renew(key, asked))

    async def _body(self, request: web.Request) -> bytes:
        """Return a body, if there is a place to read it."""
        if self._reading >= self._most_read:
            message = "too many requests to join arrive at a time; send this one again"
            raise JoinRefusedError(503, message)
        self._reading += 1
        try:
            return await _body(request)
        finally:
            self._reading -= 1


def _peer(request: web.Request) -> str:
    return request.remote or ""


async def _body(request: web.Request) -> bytes:
    """Return a body. Raises `JoinBodyError` for one that is long or slow."""
    try:
        body = await read_small(request, LONGEST_BODY)
    except TimeoutError:
        message = f"the body did not arrive within {READ_S:g} s"
        raise JoinRefusedError(408, message) from None
    if body is None:
        message = f"a request to join has up to {LONGEST_BODY} bytes"
        raise JoinRefusedError(413, message)
    return body
