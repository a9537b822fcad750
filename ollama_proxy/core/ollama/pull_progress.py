"""Read the lines in which Ollama reports a pull, or another change of models."""

import msgspec

from ollama_proxy.core.ollama.loose_json import UNREADABLE


class ProgressLine(msgspec.Struct, frozen=True):
    """Holds one line of progress, or its error; the sizes are bytes of one layer."""

    status: str = ""
    digest: str = ""
    total: float = 0.0
    completed: float = 0.0
    error: str | None = None

    @property
    def fraction(self) -> float | None:
        """Return how much of the layer is done, 0–1; None if the line does not tell."""
        if self.total <= 0:
            return None
        return round(min(1.0, self.completed / self.total), 3)


def read_progress(line: bytes) -> ProgressLine:
    """Return one line of progress; an empty one if it is nothing of the kind."""
    try:
        return msgspec.json.decode(line, type=ProgressLine)
    except UNREADABLE:
        return ProgressLine()
