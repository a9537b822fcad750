"""List, drain and remove the nodes of a hub, through the running proxy: ``nodes``."""

import sys
from typing import Annotated
from urllib.parse import quote

import typer

from ollama_proxy.base.errors import StartupError
from ollama_proxy.cli.command_settings import Config, Json
from ollama_proxy.cli.console import tell
from ollama_proxy.cli.hub_orders import order_of_hub
from ollama_proxy.cli.nodes_view import nodes_lines
from ollama_proxy.cli.status_view import as_line

_NODES = "/-/nodes"

nodes = typer.Typer(no_args_is_help=True, help="List, drain and remove nodes of a hub.")

NodeId = Annotated[str, typer.Argument(metavar="ID", help="name of the node")]


@nodes.command("list")
def list_nodes(config: Config = None, *, as_json: Json = False) -> None:
    """List the machines that have registered themselves."""
    found = order_of_hub(config, "GET", _NODES)["nodes"]
    if as_json:
        sys.stdout.write(as_line({"nodes": found}) + "\n")
    elif found:
        for line in nodes_lines(found):
            tell(line)
    else:
        tell("no node has registered itself; `ollama-proxy node` does, where Ollama is")


@nodes.command()
def drain(node_id: NodeId, config: Config = None) -> None:
    """Send a node no new requests; those that it has are finished."""
    order_of_hub(config, "POST", f"{_path(node_id)}/drain")
    tell(f"{node_id} gets no new requests; `nodes undrain` ends that")


@nodes.command()
def undrain(node_id: NodeId, config: Config = None) -> None:
    """Send a node requests again."""
    order_of_hub(config, "POST", f"{_path(node_id)}/undrain")
    tell(f"{node_id} gets requests again")


@nodes.command("rm")
def remove(node_id: NodeId, config: Config = None) -> None:
    """Forget a node, cut its requests, and take its key no more."""
    had_key = order_of_hub(config, "DELETE", _path(node_id))["had_key"]
    then = "it has to join again" if had_key else "its next beat brings it back"
    tell(f"removed {node_id}; {then}")


def _path(node_id: str) -> str:
    if not node_id:
        raise StartupError("'' names no node; see `nodes list`")
    return f"{_NODES}/{quote(node_id, safe='')}"
