"""Estimate how much disk and memory a model needs, from its size or its name.

A name gives the number of parameters, ``llama3.2:1b``, and often their precision,
``70b-instruct-q8_0``. The default in Ollama's library is four bits (``Q4_K_M``:
llama3.1:8b is 4.9 GB and llama3.3:70b 43 GB).
"""

import re

_GB = 10**9
_SPREAD = 1.1  # weights in memory are a little more than on disk
_AROUND_GB = 0.6  # the operating system, Ollama and a short context
_GB_PER_BILLION = 0.59
_BY_BITS = {2: 0.42, 3: 0.5, 4: 0.59, 5: 0.72, 6: 0.83, 8: 1.07, 16: 2.0, 32: 4.0}
_SHARED = 0.83  # experts share layers: 8x7b is 47 billion, not 56
_COUNT = re.compile(r"(?<![\w.])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![^\W_])")
_BITS = re.compile(r"(?<![^\W_])(?:i?q|bf|fp|f|int)(2|3|4|5|6|8|16|32)(?![^\W_])")
_LARGE_BY_DEFAULT = {
    "command-r-plus": 104.0,
    "deepseek-v3": 671.0,
    "llama3.3": 70.0,
    "llama4": 109.0,
    "mistral-large": 123.0,
    "mixtral": 46.7,
}
"""Billions of parameters behind a bare name, where they are many: Ollama's library."""


def weights_gb(model: str) -> float | None:
    """Return the size of a model's files in GB, from its name; None if it gives none.

    None as well for a model in Ollama's cloud, which has no files here.
    """
    name, _, tag = model.rpartition("/")[2].lower().partition(":")
    if tag == "cloud" or tag.endswith("-cloud"):
        return None
    billions = _billions(tag)
    if billions is None:
        billions = _billions(name)
    if billions is None and tag in {"", "latest"}:
        billions = _LARGE_BY_DEFAULT.get(name)
    if billions is None:
        return None
    bits = _BITS.search(tag) or _BITS.search(name)
    return billions * (_BY_BITS[int(bits[1])] if bits else _GB_PER_BILLION)


def _billions(words: str) -> float | None:
    found = _COUNT.search(words)
    if found is None:
        return None
    experts, each = found.groups()
    return float(each) if experts is None else int(experts) * float(each) * _SHARED


def needed_gb(model: str, size_bytes: int | None) -> float | None:
    """Return how much memory a model needs, in GB; None if unknown.

    From its size if an instance has had it, else from its name.
    """
    on_disk_gb = size_bytes / _GB if size_bytes else weights_gb(model)
    return None if on_disk_gb is None else on_disk_gb * _SPREAD + _AROUND_GB
