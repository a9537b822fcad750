"""Carry out ``POST /execute``: a generation of the machine's Ollama, as it comes."""

import asyncio

from aiohttp import web

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.failover import UNSTREAMED
from ollama_proxy.node.execute_body import BodyError, BodyReader, Job, parse_job
from ollama_proxy.node.local_ollama import LocalOllama
from ollama_proxy.node.ready_body import ollama_request
from ollama_proxy.node.refusals import refusal_body, refuse
from ollama_proxy.node.workload import Workload
from ollama_proxy.upstream.client import Answer, UpstreamClient
from ollama_proxy.upstream.endpoint import Upstream

_LOAD_S = 300.0
_LINES = "application/x-ndjson"


class Executor:
    """Relays generations byte for byte, no faster than the hub reads them."""

    def __init__(
        self,
        client: UpstreamClient,
        ollama: LocalOllama,
        workload: Workload,
        upstream: Upstream,
        *,
        first_byte_s: float,
        bodies: BodyReader | None = None,
    ) -> None:
        self._client, self._ollama, self._workload = client, ollama, workload
        self._upstream = upstream
        self._first_byte_s = first_byte_s
        self._bodies = bodies or BodyReader()

    async def execute(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if (refusal := self._workload.refusal()) is not None:
            return refusal
        with self._workload.counted():
            try:
                body = await self._bodies.read(request)
                try:
                    return await self._generate(request, parse_job(body))
                finally:
                    self._bodies.release(body)
            except BodyError as error:
                return refuse(error.status, str(error))

    async def _generate(self, request: web.Request, job: Job) -> web.StreamResponse:
        """Ask Ollama; the body goes on as it was received."""
        limit_s = self._first_byte_s * (1.0 if job.streams else UNSTREAMED)
        if not self._ollama.state.has_loaded(job.model):
            limit_s += _LOAD_S
        to_send = ollama_request("POST", "/api/generate", job.body)
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._client.ask(to_send, self._upstream)
        except TimeoutError:
            return refuse(
                504,
                f"the Ollama at {self._upstream.url} gave no byte within {limit_s:g} s;"
                " NODE_REQUEST_TIMEOUT of this node says how long it may take",
            )
        except UpstreamError as error:
            self._workload.on_news()
            return refuse(
                502,
                f"the Ollama at {self._upstream.url} can't be asked ({error}); start"
                " it, or set OLLAMA_BASE_URL of this node",
            )
        # What breaks inside the block closes the connection, and Ollama ends the work.
        async with answer:
            return await self._relay(request, answer)

    async def _relay(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status)
        for name in ("Content-Type", "Content-Length"):
            if name in answer.headers:
                response.headers[name] = answer.headers[name]
        await response.prepare(request)
        last = b"\n"
        try:
            async for chunk in answer.chunks():
                await response.write(chunk)
                last = chunk
        except InstanceLostError as error:
            self._workload.on_news()
            await self._break_off(request, response, last, error)
            return response
        await response.write_eof()
        return response

    async def _break_off(
        self,
        request: web.Request,
        response: web.StreamResponse,
        last: bytes,
        error: InstanceLostError,
    ) -> None:
        """End a stream that Ollama broke off, in Ollama's words where there are lines.

        An answer of one piece is cut: its reader sees that bytes are missing.
        """
        if not response.headers.get("Content-Type", "").startswith(_LINES):
            if request.transport is not None:
                request.transport.abort()
            return
        line = refusal_body(f"the node's Ollama broke off ({error})")
        await response.write((b"" if last.endswith(b"\n") else b"\n") + line + b"\n")
        await response.write_eof()
