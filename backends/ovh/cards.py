"""Tell what GPUs an app has, by the settings alone, before the API is asked. Pure."""

import re

_CARD_GB = {"v100s": 32, "v100": 16, "l4": 24, "l40s": 48, "a100": 80, "h100": 80}
_V100S_FLAVOR = "ai1-1-gpu"


def gpus_of(
    flavor: str | None, gpu_model: str, count: int
) -> tuple[int, int | None] | None:
    """Return how many GPUs there are, and their memory together in GB, if known.

    None if the flavour's name does not show whether it has any. Flavours of AI Deploy
    are named ``l4-1-gpu``, ``ai1-1-cpu``; one unit has one card.
    """
    if flavor is not None and flavor.endswith("-cpu"):
        return 0, 0
    if flavor is not None and not flavor.endswith("-gpu"):
        return None
    words = gpu_model.lower()
    if flavor is not None:
        words = "v100s" if flavor == _V100S_FLAVOR else flavor
    card_gb = _memory_gb(words)
    return count, None if card_gb is None else count * card_gb


def _memory_gb(words: str) -> int | None:
    """Return the memory of a card: from a name like ``A100-80GB``, or known."""
    said = re.search(r"(?<![\w.])(\d+)g[bi]*\b", words)
    return int(said[1]) if said else _CARD_GB.get(words.partition("-")[0])
