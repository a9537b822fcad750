"""Examine what a purchase would need, without making one."""

from collections.abc import Callable

from ollama_proxy.backends.base.findings import Look, findings_of
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.choices import (
    SYSTEM_GIB,
    InstanceType,
    find_type,
    read_types,
)
from ollama_proxy.backends.exoscale.provisioner import template_in
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.backends.exoscale.stopped_gpus import stopped_gpus
from ollama_proxy.backends.exoscale.zones import Zones
from ollama_proxy.base.errors import BackendError, CredentialsError, SpecError
from ollama_proxy.fleet.backend import Finding

RIGHTS = (
    "list-zones",
    "get-operation",
    "list-instance-types",
    "list-templates",
    "list-quotas",
    "list-instances",
    "get-instance",
    "create-instance",
    "update-instance",
    "delete-instance",
    "start-instance",
    "stop-instance",
    "list-security-groups",
    "get-security-group",
    "create-security-group",
    "add-rule-to-security-group",
    "delete-rule-from-security-group",
    "delete-security-group",
    "list-events",
)
"""Every operation that the backend calls, for the key's role, besides zones."""


def role() -> str:
    """Return the rule that allows the needed operations, for a role's policy."""
    names = ", ".join(f"'{name}'" for name in RIGHTS)
    return f"operation in [{names}]"


async def check(
    zones: Zones, api_of: Callable[[str], ExoscaleApi], settings: ExoscaleSettings
) -> list[Finding]:
    """Look at the zones, at what `examine` looks at, and at what is stopped."""
    try:
        await zones.check()
    except SpecError as error:
        return [Finding("zone", ok=False, detail=str(error))]
    findings = await examine(api_of(settings.zone), settings)
    if not findings[0].ok:
        return findings
    return findings + await stopped_gpus(zones.every(), api_of, settings.disk_price)


async def examine(api: ExoscaleApi, settings: ExoscaleSettings) -> list[Finding]:
    """Look at key, type, quota, template, disk and price, in that order."""
    try:
        types = read_types(await api.call("list_instance_types"))
    except BackendError as error:
        hint = ""
        if isinstance(error, CredentialsError):
            hint = f"; a role that is enough: default deny, allow {role()}"
        return [Finding("key", ok=False, detail=f"{error}{hint}")]
    findings = [Finding("key", ok=True, detail=f"accepted in {api.zone}")]
    found: list[InstanceType] = []

    async def look_at_type() -> str:
        found.append(find_type(types, settings.instance_type, api.zone))
        kind = found[0]
        cards = f"{kind.gpus} GPU(s)" if kind.gpus else "no GPU"
        return f"{kind.name}: {kind.cpus} CPUs, {cards}"

    async def look_at_group() -> str:
        await api.call("list_security_groups", visibility="private")
        networks = ", ".join(settings.allowed_cidr)
        return networks or "found from Exoscale's events when an instance is made"

    looks: dict[str, Look] = {
        "instance type": look_at_type,
        "quota": lambda: _quota(api, found),
        "template and disk": lambda: _template(api, settings),
        "who may connect": look_at_group,
    }
    findings += await findings_of(looks)
    price = settings.price_per_hour
    told = f"{price:.2f} per hour while it runs" if price is not None else "unknown"
    findings.append(Finding("price", ok=True, detail=told))
    return findings


async def _quota(api: ExoscaleApi, found: list[InstanceType]) -> str:
    """Return the rest of a quota; a family without an entry is unknown, not refused."""
    answer = await api.call("list_quotas")
    quotas = {quota.get("resource"): quota for quota in answer.get("quotas", [])}
    names = ["instance", *(kind.family for kind in found if kind.gpus)]
    told = []
    for name in names:
        limit = quotas.get(name, {}).get("limit")
        used = quotas.get(name, {}).get("usage", 0)
        if limit is None:
            told.append(f"{name} unknown")
        elif 0 <= limit <= used:
            raise CredentialsError(
                f"the quota {name!r} is {limit} and {used} are in use; ask Exoscale's "
                "support for more (GPU quotas are 0 on a new organisation)"
            )
        else:
            told.append(f"{name} {used} of {'∞' if limit < 0 else limit}")
    return ", ".join(told)


async def _template(api: ExoscaleApi, settings: ExoscaleSettings) -> str:
    template = await template_in(api.call, settings, api.zone)
    taken = SYSTEM_GIB[settings.engine]
    sure = ", an estimate" if settings.engine == "native" else ""
    return (
        f"{template.name} of {template.created_at[:10]}, {settings.disk_size} GiB, of"
        f" which {taken} are counted for system, driver and Ollama{sure}"
    )
