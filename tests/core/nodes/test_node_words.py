"""Why no node serves a request, in words."""

from ollama_proxy.core.nodes.node_state import NodeState
from ollama_proxy.core.nodes.node_words import (
    NO_NODE,
    condition,
    model_is_away,
    none_serves,
    takes_plain_alone,
)


def test_how_a_node_is_takes_a_word_or_two() -> None:
    offline, online = NodeState.OFFLINE, NodeState.ONLINE

    assert condition(offline, is_draining=True, is_reachable=False) == "offline"
    assert condition(online, is_draining=True, is_reachable=True) == "draining"
    assert condition(online, is_draining=False, is_reachable=True) == "online"
    assert (
        condition(online, is_draining=False, is_reachable=False)
        == "not reached (`ollama-proxy nodes list` says why)"
    )


def test_the_nodes_that_take_no_requests_are_counted() -> None:
    assert none_serves([]) == NO_NODE
    assert none_serves(["offline"]) == "the only node is offline"
    assert none_serves(["offline", "draining", "offline"]) == (
        "none of the 3 nodes takes requests: 2 offline, 1 draining"
    )


def test_three_nodes_are_named_that_have_a_model() -> None:
    holders = [(f"n{n}", "offline") for n in range(5)]

    assert model_is_away("m", holders) == (
        "no node that has the model 'm' takes requests: n0 is offline, n1 is offline,"
        " n2 is offline and 2 more"
    )
    assert model_is_away("m", holders[:1]).endswith("n0 is offline")


def test_what_nodes_without_a_key_take_is_told_with_how_they_get_one() -> None:
    told = takes_plain_alone("m")

    assert "'m' have not joined the hub" in told
    assert "`ollama-proxy node-token`" in told
