"""The security group of a deployment: only the proxy reaches its instances.

Groups belong to the organisation and have no labels: the owner is in the name.
"""

from collections.abc import Sequence
from typing import Any

import structlog

from ollama_proxy import log
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.errors import BackendError, ConflictError

PORT = 443
_ANYWHERE = ("0.0.0.0/0",)


class Firewall:
    """Keeps the group as it has to be, whatever was there before."""

    def __init__(self, owner_id: str, allowed: Sequence[str]) -> None:
        self.name = f"ollama-proxy-{owner_id}"
        self._allowed = tuple(allowed)
        self._log = structlog.get_logger()

    async def ensure(self, api: ExoscaleApi) -> str:
        """Return the id of the group, with exactly the rules that are meant."""
        group = await self._find(api) or await self._create(api)
        present = {_network(rule): rule for rule in group.get("rules") or []}
        kept = [name for name in present if "/" in name]
        wanted = set(self._allowed or await self._seen_from(api, kept))
        for network in sorted(wanted - set(present)):
            await self._add(api, group["id"], network)
        for network in set(present) - wanted:
            await api.call(
                "delete_rule_from_security_group",
                id=group["id"],
                rule_id=present[network]["id"],
            )
        return str(group["id"])

    async def _find(self, api: ExoscaleApi) -> dict[str, Any] | None:
        answer = await api.call("list_security_groups", visibility="private")
        listed = answer.get("security-groups") or []
        named = [group for group in listed if group.get("name") == self.name]
        if not named:
            return None
        group: dict[str, Any] = await api.call("get_security_group", id=named[0]["id"])
        return group

    async def _create(self, api: ExoscaleApi) -> dict[str, Any]:
        made = await api.carry_out(
            "create_security_group", name=self.name, description="made by ollama-proxy"
        )
        return await self._find(api) or {"id": made["reference"]["id"]}

    async def _add(self, api: ExoscaleApi, group_id: str, network: str) -> None:
        await api.carry_out(
            "add_rule_to_security_group",
            id=group_id,
            flow_direction="ingress",
            protocol="tcp",
            network=network,
            start_port=PORT,
            end_port=PORT,
            description="the proxy",
        )

    async def _seen_from(self, api: ExoscaleApi, kept: Sequence[str]) -> Sequence[str]:
        """Return the address that our own calls come from, as Exoscale's log has it.

        If the log does not tell, what is ``kept`` of an earlier time stays; if there
        is nothing, everybody may connect: the link's TLS and token are then all that
        keeps strangers out. Instances have IPv4 addresses only.
        """
        try:
            events = await api.call("list_events")
        except BackendError:
            events = []
        for event in sorted(events, key=_moment, reverse=True):
            source = event.get("source-ip") or ":"
            by = (event.get("iam-api-key") or {}).get("key")
            if by == api.key and ":" not in source:
                return (f"{source}/32",)
        if kept:
            return kept
        self._log.warning(log.FIREWALL_OPEN, group=self.name)
        return _ANYWHERE

    async def remove(self, api: ExoscaleApi) -> bool:
        """Delete the group; False if it is in use still, as for minutes it may be."""
        group = await self._find(api)
        if group is None:
            return True
        try:
            await api.carry_out("delete_security_group", id=group["id"])
        except ConflictError:
            return False
        return True


def _moment(event: dict[str, Any]) -> str:
    return str(event.get("timestamp") or "")


def _network(rule: dict[str, Any]) -> str:
    """Return the network of a rule like ours; something else for any other rule."""
    shape = (rule.get("flow-direction"), rule.get("protocol"))
    ports = (rule.get("start-port"), rule.get("end-port"))
    if shape == ("ingress", "tcp") and ports == (PORT, PORT):
        return str(rule.get("network"))
    return f"rule {rule.get('id')}"
