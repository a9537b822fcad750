"""List stopped instances with a GPU and no label of ours: they may cost money.

The container that this product replaces stopped its instance and set no labels, so one
of these may be its. Since that is uncertain, they are only listed.
"""

from collections.abc import Callable, Iterable

from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.choices import InstanceType, read_types
from ollama_proxy.backends.exoscale.instances import (
    Instance,
    read_instance,
    read_instances,
)
from ollama_proxy.base.errors import BackendError, NotFoundError
from ollama_proxy.fleet.backend import Finding
from ollama_proxy.fleet.owners import price


async def stopped_gpus(
    zones: Iterable[str],
    api_of: Callable[[str], ExoscaleApi],
    disk_price: float | None,
) -> list[Finding]:
    """Return a warning for each of them in these zones, with what its disk costs."""
    findings: list[Finding] = []
    for zone in zones:
        try:
            findings += await _in_zone(api_of(zone), disk_price)
        except BackendError as error:
            findings.append(
                Finding(f"instances of {zone}", ok=False, detail=str(error))
            )
    return findings


async def _in_zone(api: ExoscaleApi, disk_price: float | None) -> list[Finding]:
    listed = read_instances(await api.call("list_instances"))
    stopped = [
        one
        for one in listed
        if one.state == "stopped" and not one.is_made_by_us and not one.manager
    ]
    if not stopped:
        return []
    types = {
        kind.id: kind for kind in read_types(await api.call("list_instance_types"))
    }
    findings = []
    for one in stopped:
        try:  # lists lack the disk, and sometimes the type
            answer = await api.call("get_instance", id=one.id)
        except NotFoundError:
            continue
        kind = types.get(str((answer.get("instance-type") or {}).get("id")))
        if kind is not None and kind.gpus:
            gib = answer.get("disk-size")
            told = _told(api.zone, read_instance(answer), kind, gib, disk_price)
            findings.append(_warning(told))
    return findings


def _warning(told: str) -> Finding:
    return Finding("stopped GPU instance", ok=True, detail=told, warns=True)


def _told(
    zone: str, one: Instance, kind: InstanceType, gib: object, disk_price: float | None
) -> str:
    cost = None
    if isinstance(gib, int) and disk_price is not None:
        cost = gib * disk_price
    return (
        f"{one.name or one.id} in {zone}, {kind.name}, disk {gib or 'unknown'} GiB,"
        f" {price(cost)} for the disk; it has no label of ours, so nobody here knows"
        " whose it is; if it is yours and not needed, delete it in the portal"
        f" (`exo compute instance delete {one.id} -z {zone}`)"
    )
