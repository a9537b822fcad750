"""Where a machine may be made: regions, and the volumes in them.

A volume sits on one host. If that host is full, a copy of it may sit on another;
if the region is full, the models are pulled again in the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ollama_proxy.backends.fly.machines import Volume


@dataclass(frozen=True, slots=True)
class Place:
    """A region, and the volume there: one that is there, or a copy of one, or new."""

    region: str
    volume: str | None = None
    copy_of: str | None = None
    with_volume: bool = True

    @property
    def needs_new_volume(self) -> bool:
        """Whether a volume has to be made first."""
        return self.with_volume and self.volume is None


def places(
    regions: Sequence[str], volumes: Sequence[Volume], *, with_volume: bool
) -> list[Place]:
    """Return where to try, in order; ``volumes`` are ours and attached to nothing."""
    if not with_volume:
        return [Place(region, with_volume=False) for region in regions]
    found: list[Place] = []
    for region in regions:
        there = [one for one in volumes if one.region == region]
        if not there:
            found.append(Place(region))
            continue
        found += [Place(region, volume=one.id) for one in there]
        found.append(Place(region, copy_of=there[0].id))
    return found
