"""Check the names of nodes: each is shown in lists, logs and a path."""

from typing import Final

LONGEST_NODE_ID: Final = 128


def check_node_id(text: str) -> str:
    """Return a node's name; raises `ValueError` for one that no list can show."""
    name = text.strip()
    if not (0 < len(name) <= LONGEST_NODE_ID and name.isprintable()) or "/" in name:
        raise ValueError(
            f"{text[:LONGEST_NODE_ID]!r} is no name for a node; write up to"
            f" {LONGEST_NODE_ID} letters and digits on one line, without a slash"
        )
    return name
