"""Take the beats of nodes: ``POST /nodes/heartbeat``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from ollama_proxy.core.nodes.beat import LARGEST_BEAT, BeatError, too_large
from ollama_proxy.core.nodes.hub_routes import HEARTBEAT
from ollama_proxy.hub.beat_door import BeatDoor
from ollama_proxy.server.admin.answers import raw_json_answer
from ollama_proxy.server.admin.small_body import READ_S
from ollama_proxy.server.hub.refusals import refused

_MOST_HELD: Final = 32 << 20
"""Bytes of bodies that are being read, all together: 1 000 beats of a usual length."""


class BeatHandlers:
    """Takes beats. ``most_held``: bytes of bodies that are read at a time."""

    def __init__(self, door: BeatDoor, *, most_held: int = _MOST_HELD) -> None:
        self._door = door
        self._most_held, self._held = most_held, 0

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.post(HEARTBEAT, self.take)]

    async def take(self, request: web.Request) -> web.Response:
        """Take one beat; whether its sender may is judged before its body is read."""
        if "Origin" in request.headers:
            return refused(403, "no web page beats for a node")
        try:
            sender = self._door.admit(request.remote or "", request.headers)
            async with self._body(request) as body:
                return raw_json_answer(self._door.take(sender, bytes(body)))
        except BeatError as error:
            return refused(error.status, str(error))

    @asynccontextmanager
    async def _body(self, request: web.Request) -> AsyncIterator[bytearray]:
        """Read a body: bounded in bytes, alone and with others, and in time."""
        if (request.content_length or 0) > LARGEST_BEAT:
            raise too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(READ_S):
                async for data in request.content.iter_any():
                    body += data
                    self._held += len(data)
                    self._check(len(body))
            yield body
        except TimeoutError:
            message = f"the beat did not arrive within {READ_S:g} s; send it again"
            raise BeatError(408, message) from None
        finally:
            self._held -= len(body)

    def _check(self, length: int) -> None:
        if length > LARGEST_BEAT:
            raise too_large()
        if self._held > self._most_held:
            message = "too many long beats arrive at a time; send this one again"
            raise BeatError(503, message)
