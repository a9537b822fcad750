"""Nodes across restarts of the hub, and orders that outlast them."""

from collections.abc import Collection

import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.nodes.beat import BeatError
from ollama_proxy.core.nodes.remembered import RememberedNode
from ollama_proxy.hub.ports import Sender
from ollama_proxy.store.memory import MemoryStore
from tests.core.nodes.beats import our_beat
from tests.hub.nodes import Hub


class CountingStore(MemoryStore):
    """Counts the writes of nodes; can be out of space."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.is_full = False

    def put_nodes(
        self, nodes: Collection[RememberedNode], forgotten: Collection[str] = ()
    ) -> None:
        if self.is_full:
            raise StoreError("the state can't be written: disk full")
        self.writes += 1
        super().put_nodes(nodes, forgotten)


def test_a_restarted_hub_goes_on_with_its_nodes_for_as_long_as_a_beat_counts() -> None:
    hub = Hub()
    hub.old("old")
    hub.ours("new", seq=8)
    hub.wait(1)
    hub.clock.moment += 3600.0  # no hub, so nobody could beat

    again = hub.restarted()

    assert [one["status"] for one in again.registry.listed()] == ["online", "online"]
    facts = again.facts("new")
    assert facts is not None
    assert facts.takes_work
    assert facts.loaded is None
    assert list(facts.models) == ["qwen2.5:7b", "llama3:latest"]

    again.wait(89)
    assert again.status("old") == "online"
    again.wait(2)
    assert again.status("old") == "offline"
    again.wait(100)
    assert again.registry.listed() == []
    assert again.store.remembered_nodes() == []


def test_a_restarted_hub_is_whole_after_one_period() -> None:
    hub = Hub()
    hub.ours(seq=8, in_flight=2)
    hub.wait(1)
    again = hub.restarted()

    assert again.ours(seq=9, in_flight=2)["accepted"] == 9
    facts = again.facts()
    assert facts is not None
    assert facts.foreign == 2
    assert facts.loaded == frozenset({"llama3:latest"})


def test_what_passes_is_not_written() -> None:
    store = CountingStore()
    hub = Hub(store=store)
    for node in range(100):
        hub.ours(f"n{node}")
    hub.wait(1)
    assert store.writes == 1  # all that joined, at once

    for seq in range(2, 50):
        for node in range(100):
            hub.ours(f"n{node}", seq=seq, in_flight=seq, loaded=[])
        hub.wait(30)
    assert store.writes == 1

    hub.ours("n1", seq=60, models=[])
    hub.wait(1)
    assert store.writes == 2


def test_two_machines_of_one_name_do_not_swap_it_at_a_restart() -> None:
    hub = Hub()
    hub.ours(seq=7, boot_id="a" * 32)
    hub.ours(seq=1, boot_id="b" * 32)
    hub.wait(1)
    again = hub.restarted()

    with pytest.raises(BeatError, match="another machine"):
        again.ours(seq=8, boot_id="a" * 32)
    assert again.ours(seq=2, boot_id="b" * 32)["accepted"] == 2


def test_a_node_with_a_key_can_not_be_spoken_for_after_a_restart() -> None:
    hub = Hub()
    hub.hear(our_beat(), Sender("192.168.1.20", node_id="box"))
    hub.wait(1)

    with pytest.raises(BeatError, match="has joined with a key"):
        hub.restarted().ours(seq=9)


def test_a_drain_by_order_is_told_to_the_node_and_outlasts_everything() -> None:
    hub = Hub()
    hub.ours()
    assert hub.registry.drain("box", is_drained=True)
    facts = hub.facts()
    assert facts is not None
    assert not facts.takes_work
    assert hub.ours(seq=2)["drain"] is True

    again = hub.restarted()
    assert again.registry.listed()[0]["draining"] is True
    again.wait(200)
    assert again.registry.listed() == []

    later = again.restarted()
    assert later.registry.listed() == []
    assert later.ours(seq=3)["drain"] is True
    assert later.registry.drain("box", is_drained=False)
    assert later.ours(seq=4)["drain"] is False
    facts = later.facts()
    assert facts is not None
    assert facts.takes_work


def test_a_drain_of_a_node_that_is_gone_can_be_taken_back() -> None:
    hub = Hub()
    hub.ours()
    hub.registry.drain("box", is_drained=True)
    hub.wait(200)

    assert not hub.registry.drain("box", is_drained=True)
    assert hub.registry.drain("box", is_drained=False)
    assert not hub.registry.drain("box", is_drained=False)
    assert hub.store.remembered_nodes() == []


def test_an_agent_that_drains_goes_on_to_when_the_order_is_taken_back() -> None:
    hub = Hub()
    hub.ours(draining=True)
    hub.registry.drain("box", is_drained=True)
    hub.registry.drain("box", is_drained=False)

    assert hub.registry.listed()[0]["draining"] is True
    assert hub.registry.listed()[0]["drain_ordered"] is False


def test_an_unknown_node_can_be_neither_drained_nor_removed() -> None:
    hub = Hub()

    assert not hub.registry.drain("box", is_drained=True)
    assert not hub.registry.drain("box", is_drained=False)
    assert not hub.registry.remove("box")


def test_a_node_that_is_removed_leaves_nothing_and_may_come_back() -> None:
    hub = Hub()
    hub.ours()
    hub.registry.drain("box", is_drained=True)

    assert hub.registry.remove("box")
    assert hub.facts() is None
    assert hub.links.forgotten == ["box"]
    assert hub.store.remembered_nodes() == []
    assert hub.ours(seq=2)["drain"] is False


@pytest.mark.parametrize("is_drained", [True, False])
def test_an_order_that_can_not_be_written_changes_nothing(is_drained: bool) -> None:
    store = CountingStore()
    hub = Hub(store=store)
    hub.ours()
    hub.registry.drain("box", is_drained=not is_drained)
    before = hub.facts()
    store.is_full = True

    with pytest.raises(StoreError):
        hub.registry.drain("box", is_drained=is_drained)

    assert hub.facts() == before
    assert hub.ours(seq=2)["drain"] is not is_drained


def test_nodes_are_served_though_nothing_can_be_written_and_written_later() -> None:
    store = CountingStore()
    store.is_full = True
    hub = Hub(store=store)
    hub.ours()
    hub.wait(3)
    assert hub.status() == "online"

    store.is_full = False
    hub.wait(1)

    assert [node.node_id for node in store.remembered_nodes()] == ["box"]


def test_a_row_that_is_no_beat_is_dropped() -> None:
    hub = Hub()
    hub.store.put_nodes([RememberedNode("box", "{}")])
    again = hub.restarted()
    again.wait(1)

    assert again.registry.listed() == []
    assert again.store.remembered_nodes() == []


def test_names_that_can_not_be_written_fill_no_memory_once_they_are_gone() -> None:
    store = CountingStore()
    hub = Hub(store=store)
    hub.ours("known")
    hub.wait(1)
    store.is_full = True
    for number in range(100):
        hub.old(f"made-up-{number}")
    hub.wait(200)

    assert hub.registry.listed() == []
    assert hub.registry._memory._changed == {"known"}

    store.is_full = False
    hub.wait(1)
    assert store.remembered_nodes() == []
