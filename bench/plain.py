"""Proxy as one writes it in ten minutes with aiohttp, to compare with.

``python -m bench.plain PORT UPSTREAM_PORT``. It has none of the safeties. ``/floor``
is answered at once: nothing that stands on aiohttp's server can cost less.
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web


async def _serve(port: int, upstream_port: int) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{upstream_port}", connector=connector
    ) as session:

        async def floor(_request: web.Request) -> web.Response:
            return web.Response(body=b'{"models":[]}', content_type="application/json")

        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            async with session.request(request.method, request.path, data=body) as got:
                kept = {
                    k: v for k, v in got.headers.items() if k != "Transfer-Encoding"
                }
                response = web.StreamResponse(status=got.status, headers=kept)
                await response.prepare(request)
                async for data in got.content.iter_any():
                    await response.write(data)
                await response.write_eof()
                return response

        app = web.Application()
        app.router.add_get("/floor", floor)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=16384).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
