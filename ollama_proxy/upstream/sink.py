"""Define what takes the body of an answer, as it comes from an instance."""

from typing import Protocol


class Sink(Protocol):
    """Takes the body of an answer as it comes."""

    @property
    def is_chunked(self) -> bool:
        """Tell whether it can `write_chunk`."""

    def take(self, pieces: list[bytes]) -> bool:
        """Write pieces of the body; return True if it is full."""

    def write_chunk(self, chunk: bytes) -> bool:
        """Take one whole chunk, framed as on the wire; True if it is full."""

    async def room(self) -> None:
        """Wait until it is not full."""
