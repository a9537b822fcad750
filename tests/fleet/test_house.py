"""The nodes of an offer: they come, change and leave by what the hub tells."""

from ollama_proxy.core.lifecycle.events import (
    LeaseGranted,
    Released,
    StopRequested,
    Used,
)
from ollama_proxy.core.lifecycle.record import LaunchId, State
from ollama_proxy.core.nodes.node_state import NodeState
from ollama_proxy.fleet.house import NodeChange
from ollama_proxy.fleet.node_instance import NodeInstance
from tests.fleet.houses import a_house, a_node
from tests.virtual_time import in_virtual_time


def the_node(*changes: object) -> NodeInstance:
    house = a_house()
    for facts in (a_node(), *changes):
        house.put(facts)  # type: ignore[arg-type]  # facts of nodes
    return house.nodes[0]


def leased(node: NodeInstance) -> LaunchId:
    launch_id = node.record.launch_id
    assert launch_id is not None
    node.apply(LeaseGranted(launch_id))
    return launch_id


@in_virtual_time
async def test_a_node_that_may_get_requests_is_ready() -> None:
    node = the_node()

    assert node.record.state is State.READY
    assert (node.slot, node.node_id) == ("house/attic", "attic")


@in_virtual_time
async def test_a_node_that_may_get_none_is_not_ready() -> None:
    away = a_node(state=NodeState.OFFLINE, takes_work=False)
    drains = a_node(takes_work=False, is_draining=True)

    assert the_node(away).record.state is State.COLD
    assert the_node(a_node(upstream=None)).record.state is State.COLD
    assert the_node(drains).record.state is State.DRAINING
    assert the_node(away, a_node()).record.state is State.READY


@in_virtual_time
async def test_leases_on_a_node_are_counted_whatever_its_state() -> None:
    node = the_node()
    launch_id = leased(node)
    leased(node)
    node.take(a_node(state=NodeState.OFFLINE, takes_work=False))
    node.apply(Used(launch_id))
    node.apply(Released(launch_id, used=True))

    assert node.record.leases == 1
    assert node.record.state is State.COLD


@in_virtual_time
async def test_a_node_has_no_other_events_than_those_of_leases() -> None:
    node = the_node()
    before = node.record
    node.apply(StopRequested())

    assert node.record is before


@in_virtual_time
async def test_the_leases_of_a_process_before_are_not_those_of_the_next() -> None:
    house = a_house()
    house.put(a_node())
    former = leased(house.nodes[0])
    house.put(a_node(boot_id="b2"))
    node = house.nodes[0]
    leased(node)
    node.apply(Released(former, used=True))

    assert node.record.launch_id != former
    assert house.own_in_flight("attic") == 1


@in_virtual_time
async def test_who_watches_a_house_is_told_what_came_changed_and_left() -> None:
    house = a_house()
    told: list[tuple[str | None, bool, bool]] = []

    def watch(change: NodeChange) -> None:
        told.append((change.node.node_id, change.before is None, change.is_there))

    house.subscribe(watch)
    house.put(a_node("attic"))
    house.put(a_node("attic", cpu=0.5))
    house.put(a_node("cellar"))
    house.remove("attic")
    house.remove("attic")

    assert told == [
        ("attic", True, True),
        ("attic", False, True),
        ("cellar", True, True),
        ("attic", False, False),
    ]
    assert [one.node_id for one in house.nodes] == ["cellar"]
    assert house.own_in_flight("attic") == 0
