"""Read what an instance answers to a job, before any of it is relayed."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final, NoReturn

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.nodes.job_events import EventWriter, LongLineError
from ollama_proxy.core.ollama.activity import error_text
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.server.hub.job_stream import JobStream
from ollama_proxy.serving.response_relay import ResponseRelay
from ollama_proxy.upstream.client import Answer

_ERROR_BYTES: Final = 64 * 1024


class NodeError(Exception):
    """Reports an answer of a node that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


async def begun(answer: Answer, lease: Lease) -> AsyncIterator[bytes]:
    """Wait for the first byte of a body; return all of it.

    A former agent sends the head of its answer long before the first word of its model.
    Raises `UpstreamError` if the answer ends before that.
    """
    chunks = answer.chunks()
    try:
        first = await anext(chunks, b"")
    except InstanceLostError as error:
        raise UpstreamError(str(error), arrived=lease.was_sent) from error
    return _with_first(first, chunks)


async def _with_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for data in rest:
        yield data


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield lines as server-sent events."""
    writer = EventWriter()
    try:
        async for data in chunks:
            if told := writer.take(data):
                yield told
    except LongLineError as error:
        raise InstanceLostError(str(error)) from error
    if told := writer.end():
        yield told


async def raise_refusal(
    answer: Answer, chunks: AsyncIterator[bytes], relay: ResponseRelay[JobStream]
) -> NoReturn:
    """Read an error of a node, as far as it matters, and raise it."""
    body = b""
    with contextlib.suppress(InstanceLostError):
        async for data in chunks:
            body += data
            if len(body) > _ERROR_BYTES:
                break
    if relay.meter is not None:
        relay.meter.take_whole(answer, body)
    message = error_text(body) or f"it answered with status {answer.status}"
    raise NodeError(answer.status, message)
