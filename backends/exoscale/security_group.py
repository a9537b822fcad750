"""Read and change the security group of a deployment, rule by rule.

Groups belong to the organisation and have no labels: the owner id is in the name. No
call changes a rule: a new one is added, then the old one deleted.
"""

from typing import Any

from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.operations import reference_of
from ollama_proxy.base.errors import ConflictError, NotFoundError, TransientError

PORT = 443
ANYWHERE = "0.0.0.0/0"

Rules = dict[str, list[dict[str, Any]]]
"""The rules of the group, by network; rules unlike ours by their id.

After a lost answer a rule is added again, so a network may have several.
"""


def group_name(owner_id: str, offer: str = "") -> str:
    """Return the name of the group of a deployment, or of one of its offers."""
    return f"ollama-proxy-{owner_id}" + (f"-{offer}" if offer else "")


class SecurityGroup:
    """Finds, makes, changes and deletes the group of one owner, or offer."""

    def __init__(self, owner_id: str, offer: str = "") -> None:
        self.name = group_name(owner_id, offer)
        self.id: str | None = None

    async def replace(
        self, api: ExoscaleApi, rules: Rules, wanted: set[str], unwanted: set[str]
    ) -> None:
        """Add rules, then delete rules; ``rules`` is what there is before and after."""
        for network in sorted(wanted - set(rules)):
            await self._add(api, network)
            rules[network] = []
        for network in sorted(unwanted - wanted):
            for rule in rules.pop(network, []):
                await api.call(
                    "delete_rule_from_security_group",
                    id=self.id,
                    rule_id=rule["id"],
                )

    async def find(self, api: ExoscaleApi) -> dict[str, Any] | None:
        """Return the group with its rules; None if it does not exist."""
        if self.id is None:
            answer = await api.call("list_security_groups", visibility="private")
            listed = answer.get("security-groups") or []
            named = [group for group in listed if group.get("name") == self.name]
            if not named:
                return None
            self.id = str(named[0]["id"])
        try:
            group: dict[str, Any] = await api.call("get_security_group", id=self.id)
        except NotFoundError:
            self.id = None
            return None
        return group

    async def create(self, api: ExoscaleApi) -> dict[str, Any]:
        """Create the group and return it, or at least its id.

        Raises `TransientError` if the API does not return what it created.
        """
        made = await api.carry_out(
            "create_security_group", name=self.name, description="made by ollama-proxy"
        )
        self.id = reference_of(made)  # None: look for it by its name
        if (group := await self.find(api)) is not None:
            return group
        if self.id is None:
            raise TransientError(
                f"the security group {self.name} was made and is not listed yet in"
                f" EXOSCALE_ZONE ({api.zone!r}); it is looked for again"
            )
        return {"id": self.id}

    async def _add(self, api: ExoscaleApi, network: str) -> None:
        await api.carry_out(
            "add_rule_to_security_group",
            id=self.id,
            flow_direction="ingress",
            protocol="tcp",
            network=network,
            start_port=PORT,
            end_port=PORT,
            description="the proxy",
        )


async def remove_group(api: ExoscaleApi, name: str) -> None:
    """Delete the group of a name, if there is one.

    Raises `ConflictError` if it is still in use, which may last for minutes after its
    last instance.
    """
    answer = await api.call("list_security_groups", visibility="private")
    for group in answer.get("security-groups") or []:
        if group.get("name") != name:
            continue
        try:
            await api.carry_out("delete_security_group", id=group["id"])
        except NotFoundError:
            continue
        except ConflictError as error:
            message = f"the security group {name} is in use still, and costs nothing"
            raise ConflictError(f"{message}: {error}") from error


def rules_of(group: dict[str, Any]) -> Rules:
    """Return the rules of a group as the API shows it."""
    rules: Rules = {}
    for rule in group.get("rules") or []:
        rules.setdefault(_network(rule), []).append(rule)
    return rules


def networks_of(rules: Rules) -> set[str]:
    """Return the networks that rules like ours allow."""
    return {name for name in rules if "/" in name}


def is_one_address(network: str) -> bool:
    """Tell whether a network is a single address."""
    return network.endswith("/32")


def _network(rule: dict[str, Any]) -> str:
    """Return the network of a rule like ours; something else for any other rule."""
    shape = (rule.get("flow-direction"), rule.get("protocol"))
    ports = (rule.get("start-port"), rule.get("end-port"))
    if shape == ("ingress", "tcp") and ports == (PORT, PORT):
        return str(rule.get("network"))
    return f"rule {rule.get('id')}"
