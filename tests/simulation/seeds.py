"""Say which seeds are played: those of ``SIMULATION_SEEDS``, or a few."""

import os


def batches(usual: str, size: int) -> list[range]:
    """Return the seeds to play, in ranges of ``size``; 7-7 is one seed.

    ``usual``: the first and the last, unless ``SIMULATION_SEEDS`` names others.
    """
    first, _, last = os.environ.get("SIMULATION_SEEDS", usual).partition("-")
    end = int(last) + 1
    return [range(n, min(n + size, end)) for n in range(int(first), end, size)]
