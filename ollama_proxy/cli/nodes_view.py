"""Show nodes to people: a line for each, and what is wrong with it."""

from collections.abc import Sequence
from typing import Any, Final

from ollama_proxy.base.terminal_text import shown
from ollama_proxy.cli.columns import column_lines

_TITLES: Final = ("NODE", "STATUS", "MODELS", "CPU", "MEM", "JOBS", "FAILED", "SEEN")
_TEXTS = 3
_MOST_MODELS, _LONGEST_MODELS = 3, 40


def nodes_lines(nodes: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each node below their titles, and one for each problem."""
    table = [_TITLES, *map(_row, nodes)]
    lines = column_lines(table, left=_TEXTS)
    problems = [
        f"{shown(node['node_id'])}: {shown(node['problem'])}"
        for node in nodes
        if node.get("problem")
    ]
    pulls = [_pull(node) for node in nodes if node.get("pulling")]
    return lines + problems + pulls


def _pull(node: dict[str, Any]) -> str:
    """Return which model a node pulls, and how far it is."""
    pulling = node["pulling"]
    words = f"{shown(node['node_id'])}: pulls {shown(pulling['name'])}"
    if not pulling["total"]:
        return words
    return f"{words}, {_percent(pulling['completed'] / pulling['total'])}"


def _row(node: dict[str, Any]) -> tuple[str, ...]:
    load = node["load"]
    status = f"{node['status']}, draining" if node.get("draining") else node["status"]
    return (
        shown(node["node_id"]),
        status,
        models_words(node["models"]),
        _percent(load["cpu"]),
        _percent(load["memory"]),
        str(node["active_jobs"]),
        str(node["failure_count"]),
        f"{node['age_s']:.0f} s",
    )


def models_words(models: Sequence[str]) -> str:
    """Return the first models, and how many more there are; ``-``: none."""
    first = ", ".join(map(shown, models[:_MOST_MODELS]))
    if len(first) > _LONGEST_MODELS:
        first = f"{first[: _LONGEST_MODELS - 1]}…"
    left = len(models) - _MOST_MODELS
    return f"{first} +{left}" if left > 0 else first or "-"


def _percent(share: float) -> str:
    return f"{share:.0%}"
