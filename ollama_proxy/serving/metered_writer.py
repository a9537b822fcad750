"""Write the body of an answer to a client whose key is metered."""

from collections.abc import Callable

from ollama_proxy.core.ollama.activity import UseWatch
from ollama_proxy.serving.answer_meter import LARGE, MANY, AnswerMeter
from ollama_proxy.serving.client_writer import Asked, ClientWriter, StartedResponse


class MeteredWriter(ClientWriter):
    """Writes a body, and lets a meter have its chunks by reference."""

    def __init__(
        self,
        request: Asked,
        response: StartedResponse,
        touch: Callable[[], None],
        use: UseWatch,
        stall_s: float,
        meter: AnswerMeter,
    ) -> None:
        super().__init__(request, response, touch, use, stall_s)
        self._meter = meter
        self._ends = meter.ends

    def write_chunk(self, chunk: bytes) -> bool:
        """Write a chunk as received; True if the client is too slow for more."""
        # The rest is `ClientWriter.write_chunk`, repeated since every token passes
        # here: to call it would take as long as all that is added, some 60 ns.
        ends = self._ends
        ends.append(chunk)
        if len(ends) > MANY or len(chunk) > LARGE:
            self._meter.gather()
        if self._is_closing():
            return True
        self._touch()
        self._last_chunk = chunk
        self._write(chunk)
        return self._queued() > self._most

    def take(self, pieces: list[bytes]) -> bool:
        """Write the pieces; return True if the client is too slow for more."""
        self._meter.take(pieces)
        return super().take(pieces)
