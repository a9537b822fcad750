"""Read Fly's sizes of machines."""

from dataclasses import dataclass

_PER_CPU_MB = {"shared": (256, 2048), "performance": (2048, 8192)}
_GPUS = ("a10", "a100", "l40s", "l4", "h100")
NO_GPUS = (
    "Fly's GPU machines ended on 2026-08-01, so there is nothing to rent; use a size"
    " without, or another backend"
)


@dataclass(frozen=True, slots=True)
class Size:
    """Holds CPUs of a kind, and memory in MB."""

    kind: str
    cpus: int
    memory_mb: int

    def problem(self) -> str:
        """Return why Fly has no such machine; empty if it has."""
        least, most = (self.cpus * each for each in _PER_CPU_MB[self.kind])
        if least <= self.memory_mb <= most:
            return ""
        return (
            f"{self.memory_mb} MB is not between {least} and {most}, as this size wants"
        )


SIZES = {
    f"{prefix}-{cpus}x": Size(kind, cpus, cpus * _PER_CPU_MB[kind][1])
    for prefix, kind, counts in (
        ("shared-cpu", "shared", (1, 2, 4, 8)),
        ("performance", "performance", (1, 2, 4, 8, 16)),
    )
    for cpus in counts
}
"""Sizes by the names that `fly` uses, each with its largest memory."""


def refuse_gpus(size: str) -> None:
    """Raise `ValueError` for a size with a GPU."""
    if size.lower().startswith(_GPUS):
        raise ValueError(
            f"{size!r} has a GPU: {NO_GPUS}; the sizes are {', '.join(SIZES)}"
        )
