"""Keep the name of this node, so that it stays one node when its host is renamed."""

from pathlib import Path

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.private_file import write_private
from ollama_proxy.core.nodes.node_id import check_node_id

_FILE = "node-id"
_LONGEST_FILE = 4096


def keep_node_id(folder: Path, given: str | None, host_name: str) -> str:
    """Return the node's name, and write it down for the next start.

    The setting wins, then what the folder has, then the host's name. A folder that
    can't be written is a warning: the node works, under the same name as long as the
    host has it.
    """
    kept = _kept(folder)
    name = given or kept or _name_of_host(host_name)
    if name != kept:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(folder / _FILE, f"{name}\n".encode())
        except OSError as error:
            structlog.get_logger().warning(
                log.NODE_ID_UNWRITTEN,
                reason=f"the name {name!r} can't be kept in {str(folder)!r}"
                f" ({error.strerror or error}); set NODE_ID, or OLLAMA_PROXY_STATE_DIR"
                " to a folder of this user",
            )
    return name


def _kept(folder: Path) -> str:
    """Return the name that the folder has; nothing if it has none that is valid."""
    try:
        with (folder / _FILE).open("rb") as file:
            return check_node_id(file.read(_LONGEST_FILE).decode())
    except (OSError, ValueError):
        return ""


def _name_of_host(host_name: str) -> str:
    try:
        return check_node_id(host_name)
    except ValueError:
        return "node"
