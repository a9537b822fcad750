"""Serve the simulator's routes of blobs; it keeps their lengths alone."""

import hashlib
import re

from aiohttp import web

from ollama_proxy.simulator.requests import drained, invite, invite_later
from ollama_proxy.simulator.state import Simulator
from ollama_proxy.simulator.wire import reply

_DIGEST = re.compile(r"sha256[:-][0-9a-f]{64}")


class Blobs:
    """Stores blobs, and tells whether one exists."""

    def __init__(self, simulator: Simulator) -> None:
        self._store = simulator.store

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [
            web.head("/api/blobs/{digest}", self.head_blob),
            web.post(
                "/api/blobs/{digest}", self.post_blob, expect_handler=invite_later
            ),
        ]

    async def head_blob(self, request: web.Request) -> web.Response:
        """Tell whether a blob is there."""
        digest = request.match_info["digest"]
        if not _DIGEST.fullmatch(digest):
            return reply({"error": "invalid digest format"}, 400)
        if digest.replace("-", ":", 1) not in self._store.blobs:
            return reply({"error": "blob not found"}, 404)
        return web.Response()

    async def post_blob(self, request: web.Request) -> web.Response:
        """Store a blob's length under its digest; do not read a large one that exists.

        A new blob's digest needs the form with a colon: the name is compared literally.
        """
        wanted = request.match_info["digest"]
        if not _DIGEST.fullmatch(wanted):
            return await drained(
                reply({"error": "invalid digest format"}, 400), request
            )
        if wanted.replace("-", ":", 1) in self._store.blobs:
            return await drained(web.Response(), request)
        await invite(request)
        digest, size = hashlib.sha256(), 0
        async for data in request.content.iter_any():
            digest.update(data)
            size += len(data)
        got = f"sha256:{digest.hexdigest()}"
        self._store.blobs[got] = size
        if got != wanted:
            text = f'digest mismatch, expected "{wanted}", got "{got}"'
            return reply({"error": text}, 400)
        return web.Response(status=201)
