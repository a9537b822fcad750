"""Say in words why no node of a pool serves a request. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from ollama_proxy.core.nodes.node_state import NodeState

_NAMED: Final = 3
"""How many nodes a sentence names."""

NO_NODE: Final = (
    "no node has registered with the hub; start the agent on a machine with Ollama:"
    " `ollama-proxy node`"
)


def condition(state: NodeState, *, is_draining: bool, is_reachable: bool) -> str:
    """Return in a word or two how a node is."""
    if state is not NodeState.ONLINE:
        return state.value
    if is_draining:
        return "draining"
    return (
        "online" if is_reachable else "not reached (`ollama-proxy nodes list` says why)"
    )


def none_serves(conditions: Sequence[str]) -> str:
    """Return why no node takes requests, by how each of them is."""
    if not conditions:
        return NO_NODE
    counted = Counter(conditions)
    if len(conditions) == 1:
        return f"the only node is {conditions[0]}"
    told = ", ".join(f"{number} {words}" for words, number in counted.most_common())
    return f"none of the {len(conditions)} nodes takes requests: {told}"


def model_is_away(model: str, holders: Iterable[tuple[str, str]]) -> str:
    """Return where a model is that no node can serve now.

    ``holders``: the names of the nodes that have it, and how these are.
    """
    named = [f"{name} is {words}" for name, words in holders]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    told = ", ".join(named[:_NAMED])
    return f"no node that has the model {model!r} takes requests: {told}{more}"


def takes_plain_alone(model: str = "") -> str:
    """Return why nodes take no request of another kind, for a model or at all."""
    which = f"the nodes with the model {model!r}" if model else "the nodes"
    return (
        f"{which} have not joined the hub, so they take"
        " /api/generate with model, prompt, options and stream alone; to have them take"
        " all requests let them join, with a line of `ollama-proxy node-token`"
    )
