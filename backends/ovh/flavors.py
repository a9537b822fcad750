"""List the flavours of a region, and choose the configured one."""

import re
from collections.abc import Sequence

import msgspec

from ollama_proxy.base.errors import SpecError

_GB = 10**9
_ROUNDING = 0.9  # an 80 GB card is listed with somewhat less


class GpuInformation(msgspec.Struct, frozen=True, rename="camel"):
    """Describes the card of a flavour; its memory in bytes."""

    gpu_model: str | None = None
    gpu_memory: int | None = None


class Flavor(msgspec.Struct, frozen=True, rename="camel"):
    """Describes one flavour; ``max`` is how many units of it one app may have."""

    id: str
    max: int | None = None
    gpu_information: GpuInformation | None = None

    @property
    def has_gpu(self) -> bool:
        """Tell whether its units are GPUs."""
        known = self.gpu_information
        return bool(known and known.gpu_model) or self.id.endswith("-gpu")

    def is_model(self, words: str) -> bool:
        """Tell whether it has a configured card, such as ``A100-80GB``."""
        name, _, size = words.lower().partition("-")
        known = self.gpu_information or GpuInformation()
        names = set(re.split(r"[^a-z0-9]+", (known.gpu_model or "").lower()))
        if not self.has_gpu or name not in names | {self.id.partition("-")[0]}:
            return False
        wanted = re.fullmatch(r"(\d+)g[bi]*", size)
        if wanted is None or known.gpu_memory is None:
            return True
        return known.gpu_memory >= int(wanted[1]) * _GB * _ROUNDING


def find_flavor(
    flavors: Sequence[Flavor],
    *,
    flavor_id: str | None,
    gpu_model: str,
    count: int,
    region: str,
) -> Flavor:
    """Return the flavour that is meant; raises `SpecError` naming what there is."""
    if flavor_id is not None:
        found = [one for one in flavors if one.id == flavor_id]
    else:
        found = [one for one in flavors if one.is_model(gpu_model)]
    known = ", ".join(sorted(one.id for one in flavors)) or "none"
    if not found:
        named = f"OVH_FLAVOR {flavor_id!r}"
        wanted = named if flavor_id else f"GPU_MODEL {gpu_model!r}"
        message = f"{wanted} is not sold in {region}; flavours there: {known}"
        raise SpecError(message)
    enough = [one for one in found if one.max is None or one.max >= count]
    if not enough:
        most = max(one.max or 0 for one in found)
        message = f"GPU_COUNT {count} is too many: {found[0].id} has up to {most}"
        raise SpecError(message)
    return min(enough, key=lambda one: one.id)


def read_flavors(answer: object) -> list[Flavor]:
    """Return the flavours of a list; raises `SpecError` if it can't be read."""
    try:
        return msgspec.convert(answer, list[Flavor])
    except msgspec.ValidationError as error:
        raise SpecError(f"the list of flavours can't be read: {error}") from error
