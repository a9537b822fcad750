"""Two machines of one name: the newest has it, the older one is refused."""

from ollama_proxy.core.nodes.name_claim import MOST_DISPLACED, NameClaim, machine_of


def test_a_newer_machine_takes_the_name_and_the_older_one_is_refused() -> None:
    claim = NameClaim("a")

    assert not claim.is_refused("b", is_holder_silent=False)

    claim = claim.taken_by("b")

    assert claim.holder == "b"
    assert claim.is_refused("a", is_holder_silent=False)
    assert not claim.is_refused("b", is_holder_silent=False)
    assert not claim.is_refused("c", is_holder_silent=False)


def test_an_older_machine_has_the_name_again_once_the_newer_one_is_silent() -> None:
    claim = NameClaim("a").taken_by("b")

    assert not claim.is_refused("a", is_holder_silent=True)

    again = claim.taken_by("a")

    assert again == NameClaim("a", ("b",))
    assert again.is_refused("b", is_holder_silent=False)


def test_a_machine_that_beats_again_changes_nothing() -> None:
    claim = NameClaim("a").taken_by("b")

    assert claim.taken_by("b") is claim


def test_a_machine_that_begins_anew_ever_so_often_fills_no_memory() -> None:
    claim = NameClaim("0")
    for number in range(1, 100):
        claim = claim.taken_by(str(number))

    assert claim.displaced == tuple(str(n) for n in range(99 - MOST_DISPLACED, 99))


def test_a_former_agent_is_known_by_where_it_is_called() -> None:
    here = machine_of("", "10.0.0.5", 8001, ["10.0.0.5", "fd00::5"])

    assert here == machine_of("", "fd00::5", 8001, ["10.0.0.5", "fd00::5"])
    assert here != machine_of("", "10.0.0.5", 8002, ["10.0.0.5", "fd00::5"])
    assert here != machine_of("", "10.0.0.6", 8001, ["10.0.0.6", None])
    assert machine_of("", "10.0.0.7", 8001, ["172.17.0.2"]) == "10.0.0.7 port 8001"
    assert machine_of("b" * 32, "10.0.0.7", 8001, []) == "b" * 32
