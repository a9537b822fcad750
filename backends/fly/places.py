"""Choose where a machine may be made: regions, and the volumes in them.

A volume sits on one host. If that host is full, a copy of it may sit on another, and if
the region is full, in another region.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ollama_proxy.backends.fly.machines import Volume


@dataclass(frozen=True, slots=True)
class Place:
    """Names a region, and the volume there: an existing one, a copy of one, or new."""

    region: str
    volume: str | None = None
    copy_of: str | None = None
    with_volume: bool = True

    @property
    def needs_new_volume(self) -> bool:
        """Tell whether a volume has to be made first."""
        return self.with_volume and self.volume is None


def place_in(region: str, volumes: Sequence[Volume], stuck: Collection[str]) -> Place:
    """Return where to try in a region; ``volumes`` are ours and attached to nothing.

    ``volumes``: the best first. ``stuck``: those on hosts that were full. One of these
    is copied to another host, and one of another region to this.
    """
    there = [one for one in volumes if one.region == region]
    for volume in there:
        if volume.id not in stuck:
            return Place(region, volume=volume.id)
    source = next(iter(there or volumes), None)
    return Place(region, copy_of=source.id if source is not None else None)
