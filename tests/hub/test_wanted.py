"""The answer to a beat names what the node should pull, by what all nodes have."""

from ollama_proxy.core.nodes.beat import Beat, parse_beat
from ollama_proxy.core.nodes.wanted import parse_wanted
from ollama_proxy.hub.wanted import LOOK_EVERY_S, Wanted
from tests.core.nodes.beats import entry, our_beat, sent
from tests.hub.nodes import Hub
from tests.virtual_time import SetClock


def test_what_nodes_have_is_looked_at_now_and_then() -> None:
    clock, looks = SetClock(), []
    beats: list[Beat] = []

    def look() -> list[Beat]:
        looks.append(clock.moment)
        return beats

    wanted = Wanted(parse_wanted("all"), look, clock)
    asking = parse_beat(sent(our_beat(models=[])))
    assert wanted.wanted_by(asking) == []
    beats.append(parse_beat(sent(our_beat(models=[entry("a")]))))
    assert wanted.wanted_by(asking) == []
    clock.moment += LOOK_EVERY_S
    assert wanted.wanted_by(asking) == ["a:latest"]
    assert len(looks) == 2


def test_a_hub_that_wants_nothing_looks_at_nothing() -> None:
    def look() -> list[Beat]:
        raise AssertionError("it looked")

    wanted = Wanted(parse_wanted("none"), look, SetClock())

    assert wanted.wanted_by(parse_beat(sent(our_beat()))) == ()


def test_the_progress_of_a_pull_is_shown() -> None:
    hub = Hub()
    hub.ours(pulling={"name": "qwen2.5:7b", "completed": 5, "total": 10})

    assert hub.registry.listed()[0]["pulling"] == {
        "name": "qwen2.5:7b",
        "completed": 5,
        "total": 10,
    }
    hub.ours(seq=2)
    assert hub.registry.listed()[0]["pulling"] is None
