"""Decide which models a node is to pull: none, those of a list, or all that there are.

People's disks are theirs, so the default is none, and a node that does not tell how
much room it has is left alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ollama_proxy.core.nodes.beat import Beat
from ollama_proxy.core.nodes.beat_models import LONGEST_NAME
from ollama_proxy.core.ollama.model_names import full_model_name

RESERVE: Final = 10 << 30
"""Bytes that stay free on a node: its owner has other uses for the disk."""

UNKNOWN_SIZE: Final = 20 << 30
"""What a model counts for whose size no node tells."""

_PUBLIC: Final = frozenset({"hf.co", "huggingface.co", "ollama.com"})
_WITH_HOST: Final = 3  # host/namespace/model

MOST_AT_ONCE: Final = 50
"""How many models one answer names: a node pulls one at a time."""


@dataclass(frozen=True, slots=True)
class WantedRule:
    """Holds which models nodes are to have: ``names``, full; or all that any has."""

    names: tuple[str, ...] = ()
    is_all: bool = False

    @property
    def is_none(self) -> bool:
        """Tell whether nodes pull nothing."""
        return not (self.names or self.is_all)

    def __str__(self) -> str:
        return "all" if self.is_all else ",".join(self.names) or "none"


def parse_wanted(value: object) -> WantedRule:
    """Return the rule of ``none``, ``all`` or ``llama3,qwen2.5:7b``."""
    if isinstance(value, WantedRule):
        return value
    given = value if isinstance(value, list) else str(value).split(",")
    words = [word.strip() for word in map(str, given) if word.strip()]
    if [word.lower() for word in words] in ([], ["none"]):
        return WantedRule()
    if [word.lower() for word in words] == ["all"]:
        return WantedRule(is_all=True)
    for word in words:
        if len(word) > LONGEST_NAME or not word.isprintable() or " " in word:
            raise ValueError(
                f"{word[:LONGEST_NAME]!r} is no name of a model; write none, all, or"
                " names with commas in between"
            )
    return WantedRule(tuple(dict.fromkeys(map(full_model_name, words))))


def is_public(name: str) -> bool:
    """Tell whether a model comes from ollama.com or hf.co.

    A name can have Ollama ask any other server of the network.
    """
    parts = full_model_name(name).rpartition(":")[0].split("/")
    return len(parts) < _WITH_HOST or (len(parts) == _WITH_HOST and parts[0] in _PUBLIC)


def sizes_of(beats: Iterable[Beat]) -> dict[str, int]:
    """Return what any node has, by full name, with its bytes.

    Models that run in Ollama's cloud are left out: each account has its own; and those
    of servers that a node may have made up: see `is_public`.
    """
    sizes: dict[str, int] = {}
    for beat in beats:
        for name in beat.models:
            if name in sizes or not is_public(name):
                continue
            entry = beat.models[name]
            if not entry.get("remote_host") and (size := entry.get("size")):
                sizes[name] = size
    return sizes


def wanted_models(rule: WantedRule, sizes: Mapping[str, int], beat: Beat) -> list[str]:
    """Return what a node lacks and has room for, all of it together.

    ``sizes``: see `sizes_of`. Small models go first if all are wanted.
    """
    agent = beat.agent
    if rule.is_none or agent is None or agent.is_draining or agent.disk_free is None:
        return []
    names = sorted(sizes, key=lambda name: sizes[name]) if rule.is_all else rule.names
    left, wanted = agent.disk_free - RESERVE, []
    if (pulling := agent.pulling) is not None:
        # It takes the room that it needs while it is pulled, so room is not asked for.
        left -= max(0, pulling.total - pulling.completed)
        if rule.is_all or full_model_name(pulling.name) in names:
            wanted.append(pulling.name)
    for name in names:
        size = sizes.get(name, UNKNOWN_SIZE)
        if name in beat.models or name in wanted or size > left:
            continue
        left -= size
        wanted.append(name)
        if len(wanted) == MOST_AT_ONCE:
            break
    return wanted
