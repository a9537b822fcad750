"""Say what is known of the nodes of a pool, for ``/status`` and for its 503s."""

from collections.abc import Sequence
from typing import Any

from ollama_proxy.core.nodes.node_words import (
    condition,
    model_is_away,
    none_serves,
    takes_plain_alone,
)
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.node_instance import NodeInstance
from ollama_proxy.fleet.pool import Pool


def nodes_of(pool: Pool) -> Sequence[NodeInstance]:
    """Return every node of a pool, whatever its state."""
    return [node for house in pool.houses for node in house.nodes]


def no_node_words(pool: Pool) -> str:
    """Return why no node of a pool takes requests."""
    return none_serves([_condition(node) for node in nodes_of(pool)])


def took_none_words(pool: Pool) -> str:
    """Return why a request was taken by no node, though some take requests."""
    ready = [node for node in nodes_of(pool) if node.facts.takes_work]
    if ready and not any(node.serves_all for node in ready):
        return takes_plain_alone()
    return "no node took the request, please retry"


def model_away_words(pool: Pool, model: str, *, is_plain: bool) -> str | None:
    """Return why no node serves a model that some have; None if that is not so.

    ``is_plain``: the request is one that every node takes.
    """
    leasing, name = pool.nodes, full_model_name(model)
    if leasing is None or not leasing.is_known(name):
        return None
    holders = [node for node in nodes_of(pool) if name in node.facts.models]
    if leasing.has_ready_node(name):
        is_taken = is_plain or any(node.serves_all for node in holders)
        return None if is_taken else takes_plain_alone(model)
    return model_is_away(
        model, [(node.facts.node_id, _condition(node)) for node in holders]
    )


def _condition(node: NodeInstance) -> str:
    facts = node.facts
    return condition(
        facts.state,
        is_draining=facts.is_draining,
        is_reachable=facts.upstream is not None,
    )


def node_body(pool: Pool, node: NodeInstance, now: float) -> dict[str, Any]:
    """Return the entry of a node in ``instances``: with the keys of every instance.

    ``state`` is ``online``, ``offline`` or ``degraded``. ``foreign``: how many requests
    of others its Ollama has.
    """
    facts, record = node.facts, node.record
    is_idle = facts.takes_work and not record.leases
    slots = pool.nodes.slots_of(node) if pool.nodes is not None else None
    return {
        "slot": node.slot,
        "offer": node.offer.name,
        "backend": node.offer.backend_name or node.offer.name,
        "state": facts.state.value,
        "stage": None,
        "launch_id": record.launch_id,
        "url": node.upstream.url if node.upstream else None,
        "in_flight": record.leases,
        "slots": slots,
        "detail": None,
        "progress": None,
        "eta_s": None,
        "idle_for_s": round(now - record.last_used, 1) if is_idle else None,
        "stops_in_s": None,
        "leaving": False,
        "failures": 0,
        "error": None,
        "report": None,
        "node_id": facts.node_id,
        "draining": facts.is_draining,
        "models": len(facts.models),
        "loaded": None if facts.loaded is None else sorted(facts.loaded),
        "foreign": facts.foreign,
        "cpu": round(facts.cpu, 3),
        "gpu": facts.has_gpu,
    }
