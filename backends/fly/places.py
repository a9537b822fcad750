"""Choose where a machine may be made: regions, and the volumes in them.

A volume is on one host. If that host is full, a copy can be made on another host, and
if the region is full, in another region.
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
    """Return where to try in a region; ``volumes``: ours that are not attached.

    The best volume is first. ``stuck``: volumes on hosts that were full; such a volume
    is copied to another host. A volume of another region is copied to this one.
    """
    there = [one for one in volumes if one.region == region]
    for volume in there:
        if volume.id not in stuck:
            return Place(region, volume=volume.id)
    source = next(iter(there or volumes), None)
    return Place(region, copy_of=source.id if source is not None else None)
