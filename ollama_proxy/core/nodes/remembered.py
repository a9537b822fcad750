"""Write down what lasts of a node, so that a restarted hub can send it requests."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from ollama_proxy.core.nodes.beat import AgentFacts, Beat, parse_beat
from ollama_proxy.core.nodes.name_claim import NameClaim


class RememberedNode(msgspec.Struct, frozen=True):
    """Holds what is kept of a node.

    ``beat``: a beat without what changes from one to the next; empty for a node that is
    gone, and whose drain outlasts it. ``peer``: the address of its sender.
    ``is_drained``: by order. ``holder`` and ``displaced``: see `NameClaim`.
    """

    node_id: str
    beat: str = ""
    peer: str = ""
    has_key: bool = False
    is_drained: bool = False
    holder: str = ""
    displaced: tuple[str, ...] = ()

    @property
    def claim(self) -> NameClaim:
        """Return which machine had its name."""
        return NameClaim(self.holder, self.displaced)

    def read_beat(self) -> Beat:
        """Return its beat. Raises `BeatError` for one that no version here wrote."""
        return replace(parse_beat(self.beat.encode()), loaded=None)


def lasting_body(beat: Beat) -> str:
    """Return a beat's body with what lasts, as `parse_beat` reads it."""
    told: dict[str, Any] = {
        "node_id": beat.node_id,
        "ipv4": beat.ipv4,
        "ipv6": beat.ipv6,
        "port": beat.port,
        "metadata": {"hostname": beat.host_name},
    }
    if beat.agent is None:
        told["models"] = beat.models.names
    else:
        told["agent"] = _lasting_agent(beat.agent, beat.labels) | {
            "models": [*beat.models.values()]
        }
    return msgspec.json.encode(told).decode()


def _lasting_agent(agent: AgentFacts, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "boot_id": agent.boot_id,
        "seq": 1,
        "scheme": agent.scheme,
        "version": agent.version,
        "ollama": agent.ollama,
        "slots": agent.slots,
        "gpus": [{"name": gpu.name} for gpu in agent.gpus],
        "draining": agent.is_draining,
        "labels": labels,
    }


def is_same_node(before: Beat, after: Beat) -> bool:
    """Tell whether two beats have the same `lasting_body`, without writing it."""
    return (
        before.models == after.models
        and _lasting_values(before) == _lasting_values(after)
        and (before.agent is None) == (after.agent is None)
    )


def _lasting_values(beat: Beat) -> tuple[object, ...]:
    values = (beat.host_name, beat.ipv4, beat.ipv6, beat.port, beat.labels)
    agent = beat.agent
    if agent is None:
        return values
    return (
        *values,
        (agent.boot_id, agent.scheme, agent.version, agent.ollama, agent.slots),
        (agent.is_draining, [gpu.name for gpu in agent.gpus]),
    )
