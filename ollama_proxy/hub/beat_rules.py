"""Refuse beats: for a foreign name, of an older machine, or beyond what is kept."""

from dataclasses import dataclass

from ollama_proxy.core.nodes.beat import Beat, BeatError
from ollama_proxy.core.nodes.node_state import STANDARD_LIMITS, StateLimits
from ollama_proxy.hub.node import Node
from ollama_proxy.hub.ports import Sender


@dataclass(frozen=True, slots=True)
class RegistryLimits:
    """Holds bounds of the registry. ``beat_s``: how often nodes beat.

    ``most_bytes``: about how much memory their beats take together.
    """

    state: StateLimits = STANDARD_LIMITS
    beat_s: float = 30.0
    most_nodes: int = 4096
    most_bytes: int = 64 << 20


def check_sender(beat: Beat, sender: Sender, *, has_key: bool) -> None:
    """Raise `BeatError` for a beat in the name of another node.

    A key is that of one node, whose beats then need it: ``has_key`` tells whether the
    node has one, be it there or not.
    """
    node_id = beat.node_id
    if sender.node_id not in {None, node_id}:
        raise BeatError(
            403,
            f"this key is that of the node {sender.node_id!r}, and the beat is of"
            f" {node_id!r}; set NODE_ID={sender.node_id}, or join as {node_id!r}",
        )
    if has_key and not sender.has_key:
        raise BeatError(
            403,
            f"the node {node_id!r} has joined with a key, and this beat has none; set"
            " another NODE_ID, or join with a line of `ollama-proxy node-token`",
        )


def check_room(
    beat: Beat, node: Node | None, *, nodes: int, kept_bytes: int, most: RegistryLimits
) -> None:
    """Raise `BeatError` for one node too many, or too much to keep.

    ``nodes``, ``kept_bytes``: how many are kept now, ``node`` included, if it is known.
    """
    if node is None and nodes >= most.most_nodes:
        raise BeatError(
            503,
            f"this hub has {most.most_nodes} nodes, its most; remove some with"
            " `ollama-proxy nodes rm`",
        )
    before = 0 if node is None else node.beat.kept_bytes
    if kept_bytes - before + beat.kept_bytes > most.most_bytes:
        raise BeatError(
            503,
            f"the nodes of this hub name more models than fit into"
            f" {most.most_bytes >> 20} MiB; remove nodes, or models",
        )


def check_claim(node: Node, machine: str, *, is_silent: bool) -> None:
    """Raise `BeatError` for a machine whose name a newer one has taken.

    ``is_silent``: that one has missed its beats.
    """
    if not node.claim.is_refused(machine, is_holder_silent=is_silent):
        return
    name = node.beat.host_name
    host = f"{name} ({node.sender.peer})" if name else node.sender.peer
    raise BeatError(
        409,
        f"another machine, {host}, has the name {node.node_id!r} since; set NODE_ID to"
        " another name on one of the two, or end the agent that is not needed",
    )
