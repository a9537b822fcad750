"""Name the hub and its nodes in the certificates of the hub's authority.

No name is ever looked up: a node is found by its address, and its certificate proves
that it has the key with that name. ``internal`` is reserved for private use.
"""

from typing import Final

from ollama_proxy.core.nodes.node_keys import NodeKeyId

DOMAIN: Final = "ollama-proxy.internal"
HUB_NAME: Final = f"hub.{DOMAIN}"


def node_name(key_id: NodeKeyId) -> str:
    """Return the name of the node that has a key: another key, another name."""
    return f"{key_id}.node.{DOMAIN}"
