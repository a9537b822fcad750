"""Which models fit into which memory."""

import re

_GB = 10**9
_SPREAD = 1.1  # weights in memory are a little more than on disk
_WEIGHTS_GB = 0.65  # per billion of parameters at four bits, with what comes with them
_AROUND_GB = 0.6  # the system, Ollama and a short context


def needed_gb(model: str, size_bytes: int | None) -> float | None:
    """Return how much memory a model wants, in GB; None if nobody can tell.

    By its size, if an instance has had it; else by the count of parameters in its
    tag (``llama3.2:1b``), at four bits each.
    """
    if size_bytes:
        return size_bytes / _GB * _SPREAD + _AROUND_GB
    tag = model.partition(":")[2].lower()
    match = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)b\b", tag)
    if match is None:
        return None
    return float(match[1]) * _WEIGHTS_GB + _AROUND_GB
