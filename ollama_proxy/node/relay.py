"""Relay every request of a hub to the machine's Ollama, byte for byte, both ways."""

import structlog
from aiohttp import HttpVersion11, web

from ollama_proxy.base import log
from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.http import headers
from ollama_proxy.core.ollama.routes import BLOBS, Kind, classify
from ollama_proxy.node.hub_writer import HubWriter
from ollama_proxy.node.refusals import refuse
from ollama_proxy.node.relayed_body import RelayedBody, StalledError
from ollama_proxy.node.workload import Workload
from ollama_proxy.upstream.client import Answer, UpstreamClient
from ollama_proxy.upstream.endpoint import Upstream
from ollama_proxy.upstream.loop_mark import LOOP_DETECTED, VIA, LoopMark
from ollama_proxy.upstream.request import PreparedRequest

_WHOLE = 16 * 1024
_STALL_S = 300.0

UNTYPED = web.ResponseKey("untyped", bool)
"""Key on a response to which Ollama gave no content type."""


class OllamaRelay:
    """Relays requests. What Ollama says and how it frames it, the hub gets.

    No answer has a limit in time: the hub has its own, and what it gives up ends here.
    ``stall_s``: how long the hub may neither send nor take a byte of what goes on.
    """

    def __init__(
        self,
        client: UpstreamClient,
        mark: LoopMark,
        workload: Workload,
        upstream: Upstream,
        *,
        stall_s: float = _STALL_S,
    ) -> None:
        self._client, self._mark, self._workload = client, mark, workload
        self._upstream = upstream
        self._stall_s = stall_s

    async def relay(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request of the hub."""
        refusal = self._workload.refusal() or self._loop_refusal(request)
        if refusal is not None:
            return _closing(request, refusal)
        with self._workload.counted():
            body = RelayedBody(request, stall_s=self._stall_s)
            try:
                await body.keep_small()
                answer = await self._client.ask(outgoing(request, body), self._upstream)
            except UpstreamError as error:
                self._workload.on_news()
                message = f"the Ollama at {self._upstream.url} can't be asked ({error})"
                return _closing(request, refuse(502, message))
            except StalledError:
                _reset(request)
                raise
            # What breaks inside the block closes the connection to Ollama, which ends
            # its work.
            try:
                async with answer:
                    return await self._pour(request, answer)
            finally:
                if changes_models(request):
                    self._workload.on_news()

    def _loop_refusal(self, request: web.BaseRequest) -> web.Response | None:
        """Return the answer to a request that has passed here before."""
        objection = self._mark.objection(request.headers.getall(VIA, ()))
        return None if objection is None else refuse(LOOP_DETECTED, objection)

    async def _pour(
        self, request: web.BaseRequest, answer: Answer
    ) -> web.StreamResponse:
        """Pass an answer on. One that Ollama breaks off is reset: it looks cut."""
        fields = headers.for_client(answer.headers)
        is_bound = "Content-Length" in answer.headers and request.method != "HEAD"
        if is_bound and (body := answer.whole(_WHOLE)) is not None:
            response: web.StreamResponse = web.Response(
                status=answer.status, reason=answer.reason, headers=fields, body=body
            )
            await _begin(request, response, answer)
            await response.write_eof()
            return response
        response = web.StreamResponse(
            status=answer.status, reason=answer.reason, headers=fields
        )
        await _begin(request, response, answer)
        try:
            writer = HubWriter(request, response, stall_s=self._stall_s)
            await answer.pour(writer)
        except (InstanceLostError, ConnectionError) as error:
            if isinstance(error, InstanceLostError):
                self._workload.on_news()
            _reset(request)
            structlog.get_logger().warning(log.ANSWER_LOST, error=str(error))
            raise ConnectionResetError(str(error)) from error
        await response.write_eof()
        return response


def changes_models(request: web.BaseRequest) -> bool:
    """Tell whether a request may change which models there are; a file is none."""
    route = classify(request.method, request.rel_url.raw_path)
    return route.kind is Kind.WRITE and route.name != BLOBS


def outgoing(request: web.BaseRequest, body: RelayedBody) -> PreparedRequest:
    """Return a request as Ollama gets it: without the token that the hub is known by.

    The target is as the hub wrote it.
    """
    fields = headers.for_upstream(request.headers)
    fields.popall("Authorization", None)
    target = request.raw_path
    if not target.startswith("/"):
        target = request.rel_url.raw_path_qs
    return PreparedRequest(request.method, target, fields, body)


async def _begin(
    request: web.BaseRequest, response: web.StreamResponse, head: Answer
) -> None:
    if request.version < HttpVersion11 and "Content-Length" not in response.headers:
        response.force_close()  # the end of the connection is that of the body
    _closing(request, response)
    kept = head.headers.get("Connection", "").lower() == "keep-alive"
    if kept and request.keep_alive and response.keep_alive is not False:
        response.headers["Connection"] = "keep-alive"  # Ollama sends it on some routes
    response[UNTYPED] = "Content-Type" not in head.headers
    await response.prepare(request)


def strip_own_headers(response: web.StreamResponse) -> None:
    """Remove what aiohttp adds: Ollama names no server and invents no type."""
    response.headers.pop("Server", None)
    if response.get(UNTYPED):
        response.headers.popall("Content-Type", None)


def _closing(
    request: web.BaseRequest, response: web.StreamResponse
) -> web.StreamResponse:
    """Have a response end the connection if the rest of an upload is not read."""
    if not request.content.is_eof():
        response.force_close()
    return response


def _reset(request: web.BaseRequest) -> None:
    """Cut the connection: an orderly end would look like a whole answer."""
    if request.transport is not None:
        request.transport.abort()
