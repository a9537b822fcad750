"""Read what an instance answers to a job, before any of it is relayed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.failover import is_final
from ollama_proxy.core.nodes.agent_error import said_in
from ollama_proxy.core.nodes.job_events import EventWriter, LongLineError
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.serving.answer_meter import AnswerMeter
from ollama_proxy.serving.attempts import (
    FAILURE_S,
    HELD_BYTES,
    HeldAnswer,
    check_admitted,
    joined,
)
from ollama_proxy.upstream.client import Answer


@dataclass(frozen=True, slots=True)
class NodeRefusal:
    """Holds what a node says against a job: its words are final."""

    status: int
    message: str


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
    return joined(first, chunks)


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


async def read_refusal(
    answer: Answer, chunks: AsyncIterator[bytes], meter: AnswerMeter | None
) -> NodeRefusal | HeldAnswer:
    """Read an error of a node, as far as it matters; another node may do better."""
    body = b""
    with contextlib.suppress(InstanceLostError, TimeoutError):
        async with asyncio.timeout(FAILURE_S):
            async for data in chunks:
                body += data
                if len(body) > HELD_BYTES:
                    break
    if meter is not None:
        meter.take_whole(answer, body)  # it costs its key nothing
    check_admitted(answer.status, body)
    if not is_final(answer.status):
        return HeldAnswer(answer.status, answer.reason, answer.headers, body)
    message = said_in(body) or f"the node answered with status {answer.status}"
    return NodeRefusal(answer.status, message)
