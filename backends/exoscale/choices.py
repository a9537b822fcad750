"""Choose what to buy: names that people write, resolved to ids of a zone. Pure.

The API's types have a family and a size, and no name. Templates have names that are not
unique, and ids that differ between zones and change with each rebuild.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ollama_proxy.backends.exoscale.drivers import DriverRule, driver_rule
from ollama_proxy.base.errors import SpecError

_GIB = 1 << 30
_LISTED = 12
SYSTEM_GIB = {"native": 15, "docker": 20}
"""GiB of an instance's disk that are not for models, by engine.

With Docker driver, Docker and image: about 20 in use on real instances. Without Docker
the system, driver and unpacked archive were not measured: an estimate.
"""


class InstanceType(msgspec.Struct, frozen=True, rename="kebab"):
    """Describes one type as the API lists it; ``memory`` in bytes."""

    id: str
    family: str = ""
    size: str = ""
    cpus: int = 0
    gpus: int = 0
    memory: int = 0
    authorized: bool | None = None
    zones: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """Return family and size, as the official tools write them."""
        return f"{self.family}.{self.size}"

    def is_for_us(self, zone: str) -> bool:
        """Tell whether it may be bought there; a missing answer is no refusal."""
        offered = self.zones is None or zone in self.zones
        return offered and self.authorized is not False

    @property
    def driver(self) -> DriverRule | None:
        """Return what its cards take of NVIDIA's drivers; None without cards."""
        return driver_rule(self.family) if self.gpus else None


class Template(msgspec.Struct, frozen=True, rename="kebab"):
    """Describes one template as the API lists it; ``size`` in bytes."""

    id: str
    name: str = ""
    created_at: str = ""
    size: int = 0


def read_types(answer: dict[str, Any]) -> list[InstanceType]:
    """Return the types of ``list-instance-types``."""
    return msgspec.convert(answer.get("instance-types", []), list[InstanceType])


def read_templates(answer: dict[str, Any]) -> list[Template]:
    """Return the templates of ``list-templates``."""
    return msgspec.convert(answer.get("templates", []), list[Template])


def find_type(types: Sequence[InstanceType], wanted: str, zone: str) -> InstanceType:
    """Return the type that a person means, for example by ``a5000.small``, in a zone.

    Tried in order: the family as written, the family with the prefix ``gpu``, an id. A
    bare size belongs to the family ``standard``. Raises `SpecError`.
    """
    text = wanted.strip().lower()
    family, dot, size = text.rpartition(".")
    names = [f"{family or 'standard'}.{size}"]
    if dot:
        names.append(f"gpu{family}.{size}")
    for name in names:
        for found in types:
            if found.name == name:
                return _allowed(found, zone, types)
    for found in types:
        if found.id == text:
            return _allowed(found, zone, types)
    raise SpecError(
        f"EXOSCALE_INSTANCE_TYPE: there is no instance type {wanted!r} in {zone}, or "
        f"it is not for this organisation; with GPUs there are: "
        f"{_gpu_names(types, zone)};"
        f" without: {_other_names(types, zone)}"
    )


def _allowed(
    found: InstanceType, zone: str, types: Sequence[InstanceType]
) -> InstanceType:
    if not found.is_for_us(zone):
        raise SpecError(
            f"EXOSCALE_INSTANCE_TYPE: the instance type {found.name!r} is not offered "
            f"to this organisation in {zone}{_elsewhere(found, zone)}; ask Exoscale's "
            "support for it, or take one of those with GPUs there: "
            f"{_gpu_names(types, zone)}"
        )
    return found


def _elsewhere(found: InstanceType, zone: str) -> str:
    """Return in which zones a type is, if that is why it is not in this one."""
    if found.zones is None or zone in found.zones:
        return ""
    return f" (there is one in {_listed(found.zones)})"


def _gpu_names(types: Sequence[InstanceType], zone: str) -> str:
    return _listed(t.name for t in types if t.gpus and t.is_for_us(zone))


def _other_names(types: Sequence[InstanceType], zone: str) -> str:
    return _listed(t.name for t in types if not t.gpus and t.is_for_us(zone))


def _listed(names: Iterable[str]) -> str:
    """Return names for a sentence: each once, and not too many."""
    every = sorted(set(names))
    more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return (", ".join(every[:_LISTED]) or "none") + more


def find_template(
    private: Sequence[Template], public: Sequence[Template], wanted: str, zone: str
) -> Template:
    """Return the newest template of a name: an own one before a public one."""
    for templates in (private, public):
        named = [one for one in templates if one.name == wanted]
        if named:
            return max(named, key=lambda one: one.created_at)
    names = _listed(one.name for one in (*private, *public) if one.name)
    raise SpecError(
        f"EXOSCALE_TEMPLATE: there is no template {wanted!r} in {zone}; there are: "
        f"{names}"
    )


def check_disk(template: Template, disk_gib: int) -> None:
    """Raise `SpecError` if a template does not fit on the disk."""
    if template.size > disk_gib * _GIB:
        raise SpecError(
            f"the template {template.name!r} needs {template.size / _GIB:.0f} GiB, the "
            f"disk has {disk_gib}; raise EXOSCALE_DISK_SIZE"
        )
