"""The registry: beats and the ends of requests in, facts for the houses out."""

import pytest

from ollama_proxy.core.lifecycle.events import LeaseGranted
from ollama_proxy.core.nodes.beat import BeatError
from ollama_proxy.core.nodes.labels import parse_labels
from ollama_proxy.core.nodes.node_state import NodeState, StateLimits
from ollama_proxy.hub.beat_rules import RegistryLimits
from ollama_proxy.hub.ports import Sender
from tests.core.nodes.beats import entry, old_beat, our_beat
from tests.hub.nodes import PEER, Hub

OTHER = Sender("192.168.1.21")


def test_a_former_beat_makes_a_node_that_gets_requests() -> None:
    hub = Hub()

    answer = hub.old()

    facts = hub.facts()
    assert facts is not None
    assert (facts.state, facts.takes_work) == (NodeState.ONLINE, True)
    assert list(facts.models) == ["qwen2.5:7b", "llama3:latest"]
    assert (facts.boot_id, facts.loaded, facts.slots) == ("", None, None)
    assert facts.upstream is not None
    assert facts.upstream.url == "http://192.168.1.20:8001"
    assert answer == {
        "status": "ok",
        "accepted": None,
        "next_beat_s": 30.0,
        "wanted_models": [],
        "drain": False,
        "message": "",
    }


def test_our_beat_tells_more() -> None:
    hub = Hub()

    answer = hub.ours(seq=5, in_flight=3)

    facts = hub.facts()
    assert facts is not None
    assert answer["accepted"] == 5
    assert (facts.slots, facts.foreign, facts.has_gpu) == (4, 3, True)
    assert facts.loaded == frozenset({"llama3:latest"})


@pytest.mark.parametrize(
    ("age_s", "status", "works"),
    [(89, "online", True), (91, "offline", False), (180, "offline", False)],
)
def test_the_age_of_its_beat_decides(age_s: int, status: str, works: bool) -> None:
    hub = Hub()
    hub.old()
    hub.wait(age_s)

    facts = hub.facts()
    assert facts is not None
    assert hub.status() == status
    assert facts.takes_work is works


def test_a_node_is_removed_after_its_last_limit_and_comes_back() -> None:
    hub = Hub()
    hub.old()
    hub.wait(181)

    assert hub.status() == ""
    assert hub.facts() is None
    assert hub.links.forgotten == ["box"]
    assert hub.store.remembered_nodes() == []

    hub.old()

    assert hub.status() == "online"


def test_no_date_changes_anything() -> None:
    """Neither the hub's nor one that a node tells."""
    hub = Hub()
    hub.hear(old_beat() | {"last_seen": "1970-01-01T00:00:00Z", "timestamp": 0})
    hub.clock.date_ahead_s = -1e9
    hub.wait(89)

    assert hub.status() == "online"


def test_failures_in_a_row_degrade_and_one_success_heals() -> None:
    hub = Hub()
    hub.old()
    for _ in range(2):
        hub.registry.failed("box", "it refused the connection")
    assert hub.status() == "online"

    hub.registry.failed("box", "it answered 502")

    facts = hub.facts()
    assert facts is not None
    assert (facts.state, facts.takes_work) == (NodeState.DEGRADED, False)

    hub.registry.answered("box")

    assert hub.status() == "online"
    shown = hub.registry.shown("box")
    assert shown is not None
    assert shown["failure_count"] == 0
    assert [error["message"] for error in shown["errors"]] == [
        "it answered 502",
        "it refused the connection",
        "it refused the connection",
    ]


def test_a_beat_never_resets_failures() -> None:
    hub = Hub()
    hub.ours(seq=1)
    for _ in range(3):
        hub.registry.failed("box", "no answer")
    hub.ours(seq=2)
    hub.ours(seq=1, boot_id="f" * 32)

    assert hub.status() == "degraded"


def test_a_degraded_node_gets_a_try_after_half_a_minute() -> None:
    hub = Hub()
    hub.old()
    for _ in range(3):
        hub.registry.failed("box", "no answer")
    hub.wait(29)
    before = hub.facts()
    hub.wait(1)
    after = hub.facts()
    assert before is not None
    assert after is not None
    assert (before.takes_work, after.takes_work) == (False, True)

    hub.registry.failed("box", "no answer")

    again = hub.facts()
    assert again is not None
    assert not again.takes_work


def test_reports_on_a_node_that_left_are_heeded_by_none() -> None:
    hub = Hub()
    hub.registry.failed("box", "no answer")
    hub.registry.answered("box")

    assert hub.registry.listed() == []


def test_a_beat_that_arrives_again_or_late_is_dropped() -> None:
    hub = Hub()
    hub.ours(seq=5)
    hub.wait(80)

    assert hub.ours(seq=5, models=[])["accepted"] == 5
    assert hub.ours(seq=4, models=[])["accepted"] == 5

    hub.wait(11)

    assert hub.status() == "offline"
    assert hub.ours(seq=6)["accepted"] == 6
    assert hub.status() == "online"


def test_another_boot_counts_its_beats_anew() -> None:
    hub = Hub()
    hub.ours(seq=500)

    assert hub.ours(seq=1, boot_id="f" * 32)["accepted"] == 1


def test_requests_of_ours_are_not_foreign() -> None:
    hub = Hub()
    hub.ours(seq=1)
    (node,) = hub.houses["house"].nodes
    assert node.record.launch_id is not None
    for _ in range(2):
        node.apply(LeaseGranted(node.record.launch_id))
    hub.ours(seq=2, in_flight=5)

    facts = hub.facts()
    assert facts is not None
    assert facts.foreign == 3
    assert hub.registry.listed()[0]["active_jobs"] == 2


def test_a_draining_node_has_its_models_and_no_work() -> None:
    hub = Hub()
    hub.hear(our_beat(draining=True) | {"models": []})

    facts = hub.facts()
    assert facts is not None
    assert (facts.is_draining, facts.takes_work) == (True, False)
    assert facts.state is NodeState.ONLINE
    assert len(facts.models) == 2
    assert hub.registry.listed()[0]["draining"] is True


def test_of_two_machines_of_one_name_the_older_is_told_and_neither_flaps() -> None:
    hub = Hub()
    older, newer = old_beat(), old_beat(ipv4="192.168.1.21", metadata={"hostname": "b"})
    hub.hear(older, PEER)
    urls = set()
    for _ in range(20):
        hub.hear(newer, OTHER)
        with pytest.raises(
            BeatError, match=r"another machine, b \(192.168.1.21\)"
        ) as no:
            hub.hear(older, PEER)
        assert no.value.status == 409
        facts = hub.facts()
        assert facts is not None
        assert facts.upstream is not None
        urls.add(facts.upstream.url)
        hub.wait(30)

    assert urls == {"http://192.168.1.21:8001"}


def test_two_of_our_agents_of_one_name_are_told_from_a_restarted_one() -> None:
    hub = Hub()
    hub.ours(seq=7, boot_id="a" * 32)
    hub.ours(seq=1, boot_id="b" * 32)

    with pytest.raises(BeatError, match="set NODE_ID"):
        hub.ours(seq=8, boot_id="a" * 32)

    hub.ours(seq=1, boot_id="c" * 32)
    with pytest.raises(BeatError):
        hub.ours(seq=2, boot_id="b" * 32)


def test_the_older_machine_is_back_once_the_newer_is_silent() -> None:
    hub = Hub()
    hub.ours(seq=7, boot_id="a" * 32)
    hub.ours(seq=1, boot_id="b" * 32)
    hub.wait(91)

    assert hub.ours(seq=8, boot_id="a" * 32)["accepted"] == 8


@pytest.mark.parametrize("sender", [PEER, Sender("192.168.1.20", node_id="box")])
def test_an_agent_that_tells_the_former_keys_for_a_while_is_still_that_machine(
    sender: Sender,
) -> None:
    hub = Hub()
    hub.hear(our_beat(seq=1), sender)

    hub.hear(old_beat(), sender)

    assert hub.hear(our_beat(seq=3), sender)["accepted"] == 3


def test_a_key_speaks_for_its_node_alone() -> None:
    hub = Hub()
    keyed = Sender("192.168.1.20", node_id="box")
    hub.hear(our_beat(), keyed)

    with pytest.raises(BeatError, match="that of the node 'box'") as no:
        hub.hear(our_beat("other"), keyed)
    assert no.value.status == 403
    with pytest.raises(BeatError, match="has joined with a key") as no:
        hub.hear(our_beat(seq=2), PEER)
    assert no.value.status == 403
    assert len(list(hub.registry)) == 1


def test_a_node_that_has_joined_keeps_its_name_while_it_is_away() -> None:
    hub = Hub()
    hub.keyed.add("box")

    with pytest.raises(BeatError, match="has joined with a key"):
        hub.old("box")
    hub.hear(our_beat(), Sender("192.168.1.20", node_id="box"))


def test_a_node_without_a_key_may_join_with_one_later() -> None:
    hub = Hub()
    hub.hear(our_beat(seq=1), PEER)
    hub.hear(our_beat(seq=2), Sender("192.168.1.20", node_id="box"))

    assert hub.registry.listed()[0]["has_key"] is True


def test_labels_choose_the_houses_of_a_node() -> None:
    houses = {"fast": parse_labels("gpu=a*"), "all": parse_labels("")}
    hub = Hub(houses=houses)
    hub.ours("one", labels={"gpu": "a100"})
    hub.old("two")

    assert [node.node_id for node in hub.houses["fast"].nodes] == ["one"]
    assert [node.node_id for node in hub.houses["all"].nodes] == ["one", "two"]

    hub.ours("one", seq=2, labels={"gpu": "none"})

    assert hub.facts("one", "fast") is None
    assert hub.facts("one", "all") is not None


def test_every_node_can_be_chosen_by_its_names() -> None:
    houses = {
        "house": parse_labels({"node_id": "box*"}),
        "host": parse_labels({"hostname": "box.lan"}),
    }
    hub = Hub(houses=houses)
    hub.old("box1")
    hub.ours("two", labels={"node_id": "box2", "hostname": "x"})  # no lies about these

    assert [node.node_id for node in hub.houses["house"].nodes] == ["box1"]
    assert len(hub.houses["host"].nodes) == 2


def test_how_it_is_reached_may_be_found_later() -> None:
    hub = Hub()
    hub.links.fault = "its address has not answered yet"

    assert hub.old()["message"] == "its address has not answered yet"
    assert hub.registry.listed()[0]["url"] is None

    hub.links.fault = ""
    hub.registry.relink("box")
    hub.registry.relink("unknown")

    assert hub.registry.listed()[0]["url"] == "http://192.168.1.20:8001"


def test_one_node_too_many_is_refused_and_the_others_stay() -> None:
    hub = Hub(limits=RegistryLimits(most_nodes=2))
    hub.old("a")
    hub.old("b")

    with pytest.raises(BeatError, match="this hub has 2 nodes, its most") as no:
        hub.old("c")
    assert no.value.status == 503
    hub.old("b")
    hub.wait(181)
    hub.old("c")
    assert len(list(hub.registry)) == 1


def test_the_memory_of_all_beats_is_bounded() -> None:
    hub = Hub(limits=RegistryLimits(most_bytes=1 << 20))
    many = [entry(f"m{n}") for n in range(1000)]
    hub.ours("a", models=many)

    with pytest.raises(BeatError, match="more models than fit into 1 MiB") as no:
        hub.ours("b", models=many)
    assert no.value.status == 503

    hub.ours("a", seq=2, models=[])
    hub.ours("b", models=many)
    hub.wait(181)
    hub.ours("c", models=many)


def test_the_next_beat_is_asked_for_in_time() -> None:
    hub = Hub(limits=RegistryLimits(StateLimits(ttl_s=9)))

    assert hub.old()["next_beat_s"] == 3.0


def test_nodes_are_shown_as_the_former_hub_did() -> None:
    hub = Hub()
    hub.clock.moment, hub.clock.date_ahead_s = 1_000_000.0, 1_763_000_000.0
    hub.old()
    hub.clock.moment += 12.5

    (shown,) = hub.registry.listed()

    former = {
        "node_id": "box",
        "ipv4": "192.168.1.20",
        "ipv6": None,
        "port": 8001,
        "models": ["qwen2.5:7b", "llama3"],
        "metadata": {"hostname": "box.lan"},
        "load": {"cpu": 0.25, "memory": 0.5},
        "last_seen": "2025-11-24T16:00:00.000Z",
        "status": "online",
        "active_jobs": 0,
        "failure_count": 0,
    }
    assert former.items() <= shown.items()
    assert list(shown)[: len(former)] == list(former)
    assert shown["age_s"] == 12.5


def test_a_node_of_ours_is_shown_with_all_that_it_tells() -> None:
    hub = Hub()
    hub.ours(seq=3)

    shown = hub.registry.shown("box")

    assert shown is not None
    assert shown["slots"] == 4
    assert shown["gpus"][0]["name"] == "L4"
    assert shown["labels"] == {"site": "home", "node_id": "box", "hostname": "box.lan"}
    assert shown["errors"] == []
    assert hub.registry.shown("unknown") is None


def test_a_degraded_node_that_falls_silent_is_removed_in_time() -> None:
    """Its next try and its removal are different moments."""
    hub = Hub()
    hub.old()
    hub.wait(170)
    for _ in range(3):
        hub.registry.failed("box", "no answer")
    hub.wait(11)

    assert hub.status() == ""
