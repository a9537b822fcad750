"""Show nodes as the former hub did, with more of what is known."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from ollama_proxy.core.nodes.node_state import StateLimits
from ollama_proxy.hub.node import Node
from ollama_proxy.upstream.endpoint import Upstream


def shown_node(
    node: Node, limits: StateLimits, now: float, date: float
) -> dict[str, Any]:
    """Return a node, by the keys of the former hub first. ``date``: that of ``now``."""
    beat, agent, upstream = node.beat, node.beat.agent, node.link.upstream
    ours: dict[str, Any] = {
        "draining": node.state.is_draining,
        "drain_ordered": node.is_drained,
        "age_s": round(now - node.state.beaten_at, 1),
        "url": None if upstream is None else _way(upstream),
        "serves_all": node.link.serves_all,
        "has_key": node.sender.has_key,
        "problem": node.link.fault or (agent.fault if agent else ""),
        "labels": node.labels,
        "foreign_jobs": node.foreign,
        "loaded": None if beat.loaded is None else sorted(beat.loaded),
    }
    if agent is not None:
        ours |= {
            "boot_id": agent.boot_id,
            "seq": agent.seq,
            "version": agent.version,
            "ollama": agent.ollama,
            "slots": agent.slots,
            "gpus": [msgspec.to_builtins(gpu) for gpu in agent.gpus],
            "disk_free": agent.disk_free,
            "pulling": agent.pulling and msgspec.to_builtins(agent.pulling),
        }
    return {
        "node_id": node.node_id,
        "ipv4": beat.ipv4,
        "ipv6": beat.ipv6,
        "port": beat.port,
        "models": beat.models.names,
        "metadata": {"hostname": beat.host_name},
        "load": {"cpu": beat.cpu, "memory": beat.memory},
        "last_seen": _moment(date - (now - node.state.beaten_at)),
        "status": str(node.state_at(now, limits)),
        "active_jobs": node.own_in_flight,
        "failure_count": node.state.failures,
        **ours,
    }


def _way(upstream: Upstream) -> str:
    """Return where a node is called, or that it keeps tunnels open instead."""
    return "tunnel" if upstream.link and upstream.link.tunnel else upstream.url


def shown_errors(node: Node, now: float, date: float) -> list[dict[str, str]]:
    """Return why requests failed on a node, the newest first."""
    return [
        {"at": _moment(date - (now - error.at)), "message": error.reason}
        for error in reversed(node.errors)
    ]


def _moment(date: float) -> str:
    """Return a date as the former hub wrote it: ISO 8601, with a Z."""
    moment = datetime.fromtimestamp(date, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
