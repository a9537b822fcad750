"""Nodes of a house on real sockets, each with a fault that has a name."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum

from tests.ports import held_port

LONG_BODY = b'{"error":"' + b"x" * 70_000 + b'"}'
"""More than is held back while another node is asked."""


class Fault(Enum):
    """What a node does with a request; ``GOOD`` answers it.

    ``NOT_ADMITS``: refuses the hub, in the agent's words. ``EARLY_HEAD``: breaks off
    after the head. ``ENDS_EARLY``: as if its answer was whole, after the first word.
    ``CLOSES``: before an answer. ``DIES``: after the first word of its answer.
    ``HANGS``: takes the request, and sends nothing. ``SLOW``: for two seconds.
    ``BREAKS_502``: answers 502, and closes in the body; ``STALLS_502`` goes silent
    there. ``EMPTY_503``: without a body, in chunks. ``LONG_502``: with a body that is
    too long to be held.
    """

    GOOD = 200
    REFUSES = "refuses"
    NOT_ADMITS = "does not admit"
    EARLY_HEAD = "early head"
    ENDS_EARLY = "ends early"
    CLOSES = "closes"
    HANGS = "hangs"
    SLOW = "slow"
    DIES = "dies"
    BREAKS_502 = "breaks 502"
    STALLS_502 = "stalls 502"
    LONG_502 = "long 502"
    EMPTY_503 = "empty 503"
    SAYS_404 = 404
    SAYS_429 = 429
    SAYS_500 = 500
    SAYS_502 = 502
    SAYS_503 = 503
    SAYS_504 = 504


_CUT = {
    *(Fault.CLOSES, Fault.HANGS, Fault.EARLY_HEAD, Fault.DIES),
    *(Fault.BREAKS_502, Fault.STALLS_502),
}
_HALF_502 = b"HTTP/1.1 502 No\r\nContent-Length: 99\r\n\r\n{"
_END = b"0\r\n\r\n"


@dataclass
class Received:
    """A request as a node got it."""

    method: str
    path: str
    fields: dict[str, str]
    body: bytes


@dataclass
class FaultyNode:
    """One node. ``open``: requests whose connection it has now; see ``on_request``."""

    name: str
    fault: Fault
    url: str = ""
    received: list[Received] = field(default_factory=list)
    open: int = 0
    on_request: Callable[[], object] = lambda: None
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def asked(self) -> int:
        return len(self.received)

    async def handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                self.received.append(await _read_request(reader))
                self.open += 1
                self.on_request()
                try:
                    if not await self._answer(reader, writer):
                        break
                finally:
                    self.open -= 1
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the test ends, or the other side has closed it
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Do as the fault says; False if the connection ends with it."""
        asked, word = self.received[-1], _chunk(_word(self.received[-1], self.name))
        match self.fault:
            case Fault.CLOSES:
                pass
            case Fault.HANGS:
                await reader.read()  # until the other side closes
            case Fault.EARLY_HEAD:
                writer.write(_begin(asked))
            case Fault.DIES:
                writer.write(_begin(asked) + word)
                await writer.drain()
                await self.may_go_on.wait()
            case Fault.BREAKS_502:
                writer.write(_HALF_502)
            case Fault.STALLS_502:
                writer.write(_HALF_502)
                await reader.read()
            case fault:
                await self._answer_whole(writer, asked, word, fault)
        await writer.drain()
        return self.fault not in _CUT

    async def _answer_whole(
        self,
        writer: asyncio.StreamWriter,
        asked: Received,
        word: bytes,
        fault: Fault,
    ) -> None:
        match fault:
            case Fault.NOT_ADMITS:
                told = {"error": "who are you?", "detail": "who are you?"}
                writer.write(_whole(403, json.dumps(told).encode()))
            case Fault.ENDS_EARLY:
                writer.write(_begin(asked) + word + _END)
            case Fault.EMPTY_503:
                head = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n"
                writer.write(head + _END)
            case Fault.LONG_502:
                writer.write(_whole(502, LONG_BODY))
            case Fault.GOOD | Fault.SLOW:
                await asyncio.sleep(2.0 if fault is Fault.SLOW else 0.0)
                writer.write(_begin(asked) + word + _chunk(_last(asked)))
                await self.may_go_on.wait()
                writer.write(_END)
            case _:
                body = {"error": f"{self.name} answers {fault.value}"}
                writer.write(_whole(int(fault.value), json.dumps(body).encode()))

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    method, path, _ = head.split(" ", 2)
    pairs = re.findall(r"(?m)^([^:\r\n]+): ([^\r\n]*)", head)
    fields = {name.lower(): value for name, value in pairs}
    body = b""
    if fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(fields.get("content-length", 0)))
    return Received(method, path, fields, body)


def _is_sse(asked: Received) -> bool:
    return asked.path.startswith("/v1/") and asked.method == "POST"


def _word(asked: Received, name: str) -> bytes:
    """Return the first word of an answer: the node's name."""
    if _is_sse(asked):
        return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % name.encode()
    return b'{"response":"%b","done":false}\n' % name.encode()


def _last(asked: Received) -> bytes:
    return b"data: [DONE]\n\n" if _is_sse(asked) else b'{"response":"","done":true}\n'


def _begin(asked: Received) -> bytes:
    kind = b"text/event-stream" if _is_sse(asked) else b"application/x-ndjson"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head % kind


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(status: int, body: bytes) -> bytes:
    head = b"HTTP/1.1 %d Word\r\nContent-Type: application/json\r\nX-Node: own\r\n"
    return head % status + b"Content-Length: %d\r\n\r\n" % len(body) + body


@contextlib.asynccontextmanager
async def faulty_node(name: str, fault: Fault) -> AsyncIterator[FaultyNode]:
    """Run one node; it may go on with what it answers, unless a test says it waits."""
    node = FaultyNode(name, fault)
    node.may_go_on.set()
    if fault is Fault.REFUSES:
        node.url = f"http://127.0.0.1:{held_port()}"
        yield node
        return
    server = await asyncio.start_server(node.handle, "127.0.0.1", 0, limit=1 << 22)
    node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield node
    finally:
        server.close()
        await node.aclose()
        await server.wait_closed()
