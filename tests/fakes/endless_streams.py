"""An upstream whose streams go on until it is told to let them end."""

import asyncio
from asyncio import StreamReader, StreamWriter


class EndlessStreams:
    """Streams numbered pieces, so that one that is missing or repeated is seen.

    ``last``: how many pieces an answer has. ``open``: how many answers are under way.
    """

    def __init__(
        self, content_type: str, piece: bytes, *, framing: bytes = b""
    ) -> None:
        self._type = content_type.encode()
        self._piece = piece
        self._framing = framing or b"Transfer-Encoding: chunked"
        self.last = 10**9
        self.open = 0

    def body(self) -> bytes:
        """Return a whole answer."""
        return b"".join(self._numbered(number) for number in range(self.last))

    def _numbered(self, number: int) -> bytes:
        return self._piece.replace(b"#", b"%d" % number)

    async def __call__(self, reader: StreamReader, writer: StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n\r\n"
        writer.write(head % (self._type, self._framing))
        is_chunked, number = b"chunked" in self._framing, 0
        self.open += 1
        gone = asyncio.ensure_future(reader.read())
        try:
            while number < self.last and not (gone.done() or writer.is_closing()):
                piece = self._numbered(number)
                framed = b"%x\r\n%b\r\n" % (len(piece), piece)
                writer.write(framed if is_chunked else piece)
                await writer.drain()
                number += 1
                await asyncio.sleep(0.01)
            writer.write(b"0\r\n\r\n")
        finally:
            self.open -= 1
            gone.cancel()
