"""The security group: exactly the rules that are meant, whatever was there."""

import pytest

from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.firewall import Firewall
from ollama_proxy.base.errors import ConflictError, CredentialsError
from tests.backends.exoscale.rig import Rig


def networks(rig: Rig) -> list[str]:
    (group,) = rig.cloud.groups.values()
    return sorted(str(rule.get("network")) for rule in group["rules"])


async def test_the_address_comes_from_the_events_of_our_own_key(
    rig: Rig, api: ExoscaleApi
) -> None:
    await Firewall("o", (), rig.clock).ensure(api)

    assert networks(rig) == ["198.51.100.7/32"]


async def test_a_named_network_wins(rig: Rig, api: ExoscaleApi) -> None:
    await Firewall("o", ("203.0.113.0/24",), rig.clock).ensure(api)

    assert networks(rig) == ["203.0.113.0/24"]


async def test_without_the_right_to_see_events_tls_and_token_stand_alone(
    rig: Rig, api: ExoscaleApi
) -> None:
    rig.server.always["list-events"] = "403"
    await Firewall("o", (), rig.clock).ensure(api)

    assert networks(rig) == ["0.0.0.0/0"]


async def test_rules_that_are_not_meant_are_removed(rig: Rig, api: ExoscaleApi) -> None:
    firewall = Firewall("o", ("203.0.113.0/24",), rig.clock)
    group_id = await firewall.ensure(api)
    open_ssh = {"flow-direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0"}
    await api.call(
        "add_rule_to_security_group",
        id=group_id,
        flow_direction="ingress",
        protocol="tcp",
        network="0.0.0.0/0",
        start_port=22,
        end_port=22,
    )
    before = networks(rig)
    moved = Firewall("o", ("198.51.100.9/32",), rig.clock)
    again = await moved.ensure(api)

    assert open_ssh["network"] in before
    assert again == group_id
    assert networks(rig) == ["198.51.100.9/32"]


async def test_a_group_in_use_is_removed_later(rig: Rig, api: ExoscaleApi) -> None:
    firewall = Firewall("o", ("203.0.113.0/24",), rig.clock)
    group_id = await firewall.ensure(api)
    user = rig.cloud.stranger()
    user.body["security-groups"] = [{"id": group_id}]
    with pytest.raises(ConflictError, match="is in use still"):
        await firewall.remove(api)
    user.gone_at = rig.cloud.now()
    await firewall.remove(api)

    assert rig.cloud.groups == {}


async def test_a_group_that_was_made_anew_is_not_taken_for_whole_without_its_rules(
    rig: Rig, api: ExoscaleApi
) -> None:
    firewall = Firewall("o", (), rig.clock)
    await firewall.ensure(api)
    rig.cloud.groups.clear()  # by somebody, and the next look tells of it
    rig.clock.ahead_s += 30.0
    await firewall.tend(api, reached=False, touch=never)
    rig.server.script["add-rule-to-security-group"] = ["403"]
    with pytest.raises(CredentialsError):
        await firewall.ensure(api)
    await firewall.ensure(api)

    assert networks(rig) == ["198.51.100.7/32"]


async def never() -> None:
    raise AssertionError("the group is gone, so no rule is in the way")
