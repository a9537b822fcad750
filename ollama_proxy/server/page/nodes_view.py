"""Choose what the page shows of a hub's nodes, as the former dashboard did. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from ollama_proxy.base.terminal_text import shown_values
from ollama_proxy.server.page.bar import Bar, bar_of
from ollama_proxy.server.page.words import counted, length

MOST_ROWS: Final = 100
"""Nodes that are shown; of more those with trouble come first."""

_MOST_MODELS = 12
_ONLINE, _DEGRADED = "online", "degraded"
_STATES: Final = {
    _ONLINE: "it takes requests",
    "offline": "it has not beaten for a while",
    _DEGRADED: "its requests failed; it gets one try each 30 s",
}


@dataclass(frozen=True, slots=True)
class NodeView:
    """Holds a row of the table of nodes."""

    name: str
    place: str
    state: str
    state_words: str
    models: str
    cpu: str
    memory: str
    jobs: str
    failures: str
    seen: str
    problem: str
    pulling: str
    bar: Bar | None


@dataclass(frozen=True, slots=True)
class NodesView:
    """Holds the nodes: their figures, the rows, and how many more there are."""

    figures: tuple[tuple[str, int], ...]
    rows: tuple[NodeView, ...]
    left_out: str


def nodes_view(nodes: Sequence[dict[str, Any]]) -> NodesView:
    """Return what the page shows of nodes, given as ``GET /nodes`` has them."""
    found = nodes
    if len(nodes) > MOST_ROWS:
        found = sorted(nodes, key=_is_well)[:MOST_ROWS]
    told = cast("list[dict[str, Any]]", shown_values(list(found)))
    left = len(nodes) - len(found)
    more = f"{counted(left, 'node', 'nodes')} more: `ollama-proxy nodes list` has all"
    return NodesView(_figures(nodes), tuple(map(_node, told)), more if left else "")


def _is_well(node: dict[str, Any]) -> bool:
    """Tell whether a node is not worth a first look; a sort keeps the order else."""
    return node["status"] == _ONLINE and not node["problem"]


def _figures(nodes: Sequence[dict[str, Any]]) -> tuple[tuple[str, int], ...]:
    states = [node["status"] for node in nodes]
    return (
        *((state, states.count(state)) for state in _STATES),
        ("jobs", sum(node["active_jobs"] for node in nodes)),
    )


def _node(node: dict[str, Any]) -> NodeView:
    pulling = node.get("pulling")  # former agents pull nothing
    is_draining, load = node["draining"], node["load"]
    state = node["status"]
    words = _STATES[state]
    if is_draining and state == _ONLINE:
        state, words = "draining", "it gets no new requests"
    host = node["metadata"]["hostname"]
    return NodeView(
        name=node["node_id"],
        place=", ".join(
            word
            for word in ("" if host == node["node_id"] else host, node["url"])
            if word
        ),
        state=state,
        state_words=words,
        models=_models(node["models"]),
        cpu=_percent(load["cpu"]),
        memory=_percent(load["memory"]),
        jobs=str(node["active_jobs"]),
        failures=str(node["failure_count"]),
        seen=f"{length(node['age_s'])} ago",
        problem=node["problem"],
        pulling=f"pulls {pulling['name']}" if pulling else "",
        bar=_bar_of_pull(pulling) if pulling else None,
    )


def _bar_of_pull(pulling: dict[str, Any]) -> Bar | None:
    total = pulling["total"]
    share = min(1.0, pulling["completed"] / total) if total else None
    return bar_of(f"pull of {pulling['name']}", share)


def _models(models: Sequence[str]) -> str:
    """Return the models; of many the first ones, and how many more there are."""
    left = len(models) - _MOST_MODELS
    more = [f"{left} more"] if left > 0 else []
    return ", ".join([*models[:_MOST_MODELS], *more]) or "none"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
