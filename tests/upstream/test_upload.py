"""Bodies of requests: sent as they come, no faster than the connection takes them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ollama_proxy.upstream.upload import WriteGate, send_parts, slices
from tests.upstream.rig import StillTransport


async def parts_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize(
    ("chunked", "sent"), [(True, b"2\r\nab\r\n0\r\n\r\n"), (False, b"ab")]
)
async def test_a_part_without_bytes_is_not_taken_for_the_end(
    chunked: bool, sent: bytes
) -> None:
    transport = Written()
    await send_parts(parts_of(b"", b"ab"), transport, WriteGate(), chunked=chunked)

    assert transport.wire == sent


async def test_nothing_is_sent_while_the_gate_is_closed() -> None:
    transport, gate = Written(), WriteGate()
    gate.close()
    sending = asyncio.ensure_future(
        send_parts(parts_of(b"a", b"b"), transport, gate, chunked=False)
    )
    await asyncio.sleep(0)
    before = transport.wire
    gate.open()
    await sending

    assert (before, transport.wire) == (b"a", b"ab")


async def test_a_closed_connection_ends_an_upload_without_a_fault() -> None:
    transport = Written()
    transport.closed = True
    await send_parts(parts_of(b"a"), transport, WriteGate(), chunked=True)

    assert transport.wire == b""


async def test_slices_are_the_whole_body() -> None:
    assert [part async for part in slices(b"abcde", 2)] == [b"ab", b"cd", b"e"]


class Written(StillTransport):
    """Remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = b""

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.wire += data
