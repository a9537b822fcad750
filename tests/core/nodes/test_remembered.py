"""What lasts of a node: it is read back as it was, and told from what passes."""

from typing import Any

import pytest

from ollama_proxy.core.nodes.beat import BeatError, parse_beat
from ollama_proxy.core.nodes.remembered import (
    RememberedNode,
    is_same_node,
    lasting_body,
)
from tests.core.nodes.beats import entry, old_beat, our_beat, sent


@pytest.mark.parametrize("beat", [old_beat(), our_beat(seq=9, draining=True)])
def test_a_beat_is_read_back_with_what_lasts(beat: dict[str, object]) -> None:
    whole = parse_beat(sent(beat))

    again = RememberedNode("box", lasting_body(whole)).read_beat()

    assert is_same_node(again, whole)
    assert dict(again.models) == dict(whole.models)
    assert (again.cpu, again.memory) == (0.0, 0.0)
    if again.agent is not None and whole.agent is not None:
        assert again.agent.boot_id == whole.agent.boot_id
        assert again.agent.is_draining is whole.agent.is_draining
        assert [gpu.name for gpu in again.agent.gpus] == ["L4"]


@pytest.mark.parametrize(
    "changed",
    [
        {"boot_id": "f" * 32},
        {"models": [entry("qwen2.5:7b")]},
        {"models": [entry("qwen2.5:7b"), entry("llama3:latest", digest="0")]},
        {"slots": 5},
        {"labels": {}},
        {"draining": True},
        {"version": "2.0.0"},
        {"gpus": []},
        {"scheme": "https"},
    ],
)
def test_what_lasts_is_noticed(changed: dict[str, Any]) -> None:
    assert not is_same_node(
        parse_beat(sent(our_beat())), parse_beat(sent(our_beat(seq=2, **changed)))
    )


def test_what_passes_is_not() -> None:
    busy = our_beat(seq=2, in_flight=7, loaded=[], disk_free=5)
    busy["load"] = {"cpu": 1, "memory": 1}

    assert is_same_node(parse_beat(sent(our_beat())), parse_beat(sent(busy)))


def test_a_former_agent_that_was_replaced_by_ours_is_noticed() -> None:
    models = [{"name": "qwen2.5:7b"}, {"name": "llama3"}]
    ours = parse_beat(sent(our_beat(models=models)))

    assert not is_same_node(parse_beat(sent(old_beat())), ours)


def test_what_is_damaged_is_no_beat() -> None:
    with pytest.raises(BeatError):
        RememberedNode("box", "{").read_beat()
