"""What every store does, whatever it is made of: the ports, held to their words."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.moments import Mark
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import Fault, LaunchId, Record, State
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.core.ollama.lessons import Lessons
from ollama_proxy.core.restore_plan import Origin, StickyModel
from ollama_proxy.store.ports import PLACES, REMEMBERED, Claim, Store
from tests.slots import SLOT, slot_of
from tests.store.rig import LINES, Rig

ONE, TWO = LaunchId("l0000000000000001"), LaunchId("l0000000000000002")
READY = Record(State.READY, since=1.0, launch_id=ONE, accepted=True, woken_at=1.0)
MODEL = StickyModel("a:latest", Origin.PULLED, "a", "a")
CONTENTS = Snapshot(b'{"models":[]}', "0.33.0", {"m:latest": b"{}"})


def line(number: float, launch_id: LaunchId = ONE, report: str = "") -> Transition:
    return Transition(
        number, SLOT, launch_id, "cold", "starting", "Wake", None, report or None
    )


class Ticking:
    """A clock whose marks are numbered."""

    def __init__(self) -> None:
        self.marks = 0

    def mark(self) -> Mark:
        self.marks += 1
        return Mark(float(self.marks), 0.0, 0.0, "boot")


def test_a_slot_without_a_record_has_none(rig: Rig) -> None:
    assert rig.store.get(SLOT) is None
    assert rig.store.launch_ids() == set()


def test_a_record_is_read_back_as_it_was(rig: Rig) -> None:
    failed = Record(State.COOLDOWN, fault=Fault("quota", "no room", final=True))
    rig.store.put(SLOT, READY, None)
    rig.store.put("other", failed, None)

    assert rig.store.get(SLOT) == READY
    assert rig.again().get(SLOT) == READY
    assert rig.store.get("other") == failed


def test_the_newest_record_of_a_slot_counts(rig: Rig) -> None:
    rig.store.put(SLOT, READY, None)
    rig.store.put(SLOT, Record(), None)

    assert rig.again().get(SLOT) == Record()
    assert rig.store.launch_ids() == set()


def test_the_launches_on_record_are_named(rig: Rig) -> None:
    rig.store.put(SLOT, READY, None)
    rig.store.put("cold", Record(), None)

    assert rig.again().launch_ids() == {ONE}


def test_a_launch_is_remembered_when_no_record_names_it_any_more(rig: Rig) -> None:
    rig.store.put(SLOT, READY, line(1.0))
    rig.store.put(SLOT, Record(), None)

    assert rig.again().remembers(ONE)
    assert not rig.store.remembers(TWO)


def test_a_launch_on_record_is_remembered_without_a_line_of_the_journal(
    rig: Rig,
) -> None:
    rig.store.put(SLOT, READY, None)

    assert rig.store.remembers(ONE)


def test_launches_that_are_gone_are_forgotten_and_no_other(rig: Rig) -> None:
    rig.store.put(SLOT, READY, None)
    rig.store.put("other", Record(State.STARTING, launch_id=TWO), None)
    rig.store.forget([ONE])

    assert rig.again().launch_ids() == {TWO}
    found = rig.store.get(SLOT)
    assert found is not None
    assert found.state is State.COLD


def test_the_journal_is_newest_first_and_bounded(rig: Rig) -> None:
    for number in range(LINES + 2):
        rig.store.add_line(line(float(number), report="words"))
    lines = rig.again().journal(LINES * 2)

    assert len(lines) == LINES
    assert lines[0] == line(LINES + 1.0, report="words")
    assert lines[-1].at == 2.0
    assert [one.at for one in rig.store.journal(2)] == [6.0, 5.0]


def test_a_record_and_its_line_are_written_together(rig: Rig) -> None:
    rig.store.put(SLOT, READY, line(7.0))

    assert rig.again().journal() == [line(7.0)]


async def test_a_launch_that_is_reserved_is_on_record_with_its_line(rig: Rig) -> None:
    launch = Record(State.STARTING, since=7.0, launch_id=TWO, woken_at=7.0)
    await rig.store.reserve(SLOT, launch, line(7.0, TWO))

    assert rig.again().get(SLOT) == launch
    assert rig.store.launch_ids() == {TWO}
    assert rig.store.journal() == [line(7.0, TWO)]


async def test_what_is_put_after_a_reservation_stays_after_it(rig: Rig) -> None:
    await rig.store.reserve(SLOT, Record(State.STARTING, launch_id=TWO), line(7.0, TWO))
    rig.store.put(SLOT, Record(), None)

    assert rig.again().get(SLOT) == Record()
    assert rig.store.remembers(TWO)


def test_the_last_launches_are_remembered_by_offer_in_order(rig: Rig) -> None:
    for number in range(REMEMBERED + 5):
        rig.store.add_launch("a", 100.0 - number)
    rig.store.add_launch("b", 9.0)

    assert rig.again().launch_durations_s("a") == [
        100.0 - number for number in range(5, REMEMBERED + 5)
    ]
    assert rig.store.launch_durations_s("b") == [9.0]
    assert rig.store.launch_durations_s("c") == []


def test_the_stages_of_the_last_launches_are_remembered_by_offer(rig: Rig) -> None:
    for number in range(REMEMBERED + 5):
        rig.store.stages.add("a", {"creating": 1.0, "booting": float(number)})
    rig.store.stages.add("b", {"loading": 3.0})
    launches = rig.again().stages.launches("a")

    assert [one["booting"] for one in launches] == [
        float(number) for number in range(5, REMEMBERED + 5)
    ]
    assert list(launches[0]) == ["creating", "booting"]
    assert rig.store.stages.launches("b") == [{"loading": 3.0}]


def test_models_are_remembered_by_name_until_they_are_dropped(rig: Rig) -> None:
    other = StickyModel("b:latest", Origin.PULLED, "b", "b")
    for model in (other, MODEL, MODEL):
        rig.store.put_sticky(model)
    assert rig.again().sticky_models() == [MODEL, other]
    rig.store.drop_sticky("a:latest")
    rig.store.drop_sticky("never there")

    assert rig.again().sticky_models() == [other]


def test_what_is_known_of_a_place_is_kept_by_its_name(rig: Rig) -> None:
    assert rig.store.place("here").contents() is None
    assert rig.store.place("here").lessons() == Lessons()
    rig.store.place("here").put_contents(CONTENTS)
    rig.store.place("here").put_lessons(Lessons(["GET /x"], wakes=[1.5]))

    assert rig.again().place("here").contents() == CONTENTS
    assert rig.store.place("here").lessons() == Lessons(["GET /x"], wakes=[1.5])
    assert rig.store.place("there").contents() is None
    assert rig.store.place("there").lessons() == Lessons()


def test_a_place_that_gets_another_name_is_about_that_one(rig: Rig) -> None:
    rig.store.place("here").put_contents(CONTENTS)
    place = rig.store.place("there")
    place.put_lessons(Lessons(["GET /x"]))
    place.name = "here"

    assert (place.contents(), place.lessons()) == (CONTENTS, Lessons())


def test_lessons_do_not_change_with_those_that_were_handed_in(rig: Rig) -> None:
    lessons = Lessons(["GET /x"])
    rig.store.place("here").put_lessons(lessons)
    lessons.routes.append("GET /y")
    rig.store.place("here").lessons().routes.append("GET /z")

    assert rig.store.place("here").lessons() == Lessons(["GET /x"])


def test_the_places_written_last_are_remembered(rig: Rig) -> None:
    for number in range(PLACES + 3):
        rig.store.place("first").put_contents(CONTENTS)
        rig.store.place(f"place {number}").put_lessons(Lessons(["GET /x"]))
    rig.again()
    kept = [
        number
        for number in range(PLACES + 3)
        if rig.store.place(f"place {number}").lessons().routes
    ]

    assert kept == list(range(4, PLACES + 3))
    assert rig.store.place("first").contents() == CONTENTS


def test_the_notes_of_two_backends_are_kept_apart(rig: Rig) -> None:
    one, two = rig.store.notes_of("exoscale"), rig.store.notes_of("ovh")
    one.put_note(ONE, b"before")
    one.put_note(ONE, b"one")
    two.put_note(ONE, b"two")
    two.drop_note(ONE)
    two.drop_note(TWO)

    assert rig.again().notes_of("exoscale").notes() == {ONE: b"one"}
    assert rig.store.notes_of("ovh").notes() == {}


def test_the_owner_id_is_drawn_once_until_another_is_taken_over(rig: Rig) -> None:
    owner_id = rig.store.owner_id
    assert len(owner_id) == 16
    assert rig.again().owner_id == owner_id
    rig.store.take_over("0123456789abcdef")

    assert rig.store.owner_id == "0123456789abcdef"
    assert rig.again().owner_id == "0123456789abcdef"


def claim(store: Store, *claims: Claim, slots: Collection[str] = ()) -> None:
    """Claim the records of one slot for each offer, or of these."""
    store.claim(claims, slots or [slot_of(one.offer) for one in claims])


EXOSCALE, OVH = Claim("exoscale", "exoscale"), Claim("ovh", "ovh")


def test_an_instance_whose_offer_the_settings_lose_is_not_forgotten(rig: Rig) -> None:
    claim(rig.store, EXOSCALE)
    rig.store.put(SLOT, READY, None)
    with pytest.raises(StartupError) as caught:
        claim(rig.again(), OVH)
    assert str(caught.value) == (
        f"launch {ONE} is on record for the offer 'exoscale' of the backend 'exoscale',"
        " which the settings no longer have; run `ollama-proxy stop --launch"
        f" {ONE}` to end it, or put the settings back"
    )
    claim(rig.store, OVH, EXOSCALE)
    rig.store.put(SLOT, Record(), None)
    claim(rig.store, OVH)
    rig.store.put(slot_of("ovh"), READY, None)
    with pytest.raises(StartupError, match="for the offer 'ovh' of the backend 'ovh'"):
        claim(rig.store, EXOSCALE)


def test_an_offer_with_an_instance_keeps_its_backend(rig: Rig) -> None:
    claim(rig.store, Claim("box", "fly"))
    rig.store.put(slot_of("box"), READY, None)

    with pytest.raises(
        StartupError, match=r"'box' of the backend 'fly', which has the"
    ):
        claim(rig.again(), Claim("box", "ovh"))


def test_a_slot_with_an_instance_is_not_lost(rig: Rig) -> None:
    claim(rig.store, EXOSCALE)
    rig.store.put("big/2/exoscale", READY, None)

    with pytest.raises(StartupError, match="as number 3 of the pool 'big'"):
        claim(rig.again(), EXOSCALE, slots=["big/0/exoscale", "big/1/exoscale"])


def test_every_launch_that_the_settings_lose_is_told_at_once(rig: Rig) -> None:
    claim(rig.store, EXOSCALE, OVH)
    rig.store.put(SLOT, READY, None)
    rig.store.put(slot_of("ovh"), replace(READY, launch_id=TWO), None)

    with pytest.raises(StartupError) as caught:
        claim(rig.again(), Claim("fly", "fly"))

    lines = str(caught.value).splitlines()
    assert [line.split()[1] for line in lines] == [ONE, TWO]


def test_what_costs_nothing_binds_nobody(rig: Rig) -> None:
    claim(rig.store, Claim("static", "static", costs=False))
    rig.store.put(slot_of("static"), READY, None)

    claim(rig.again(), EXOSCALE)

    assert rig.store.launch_ids() == set()


def test_what_is_noted_of_offers_is_read_again(rig: Rig) -> None:
    noted = Claim("box", "fly", costs=True, spec=b'{"app":"mine"}')
    claim(rig.store, noted, OVH)

    assert rig.again().claims() == {"box": noted, "ovh": OVH}


def test_a_record_that_names_no_offer_gets_the_first(rig: Rig) -> None:
    """An earlier version did not note which backend a free instance was of."""
    rig.store.put("default/0/", READY, None)

    claim(rig.again(), Claim("local", "local", costs=False), EXOSCALE)

    assert rig.store.launches() == {slot_of("local"): ONE}


def test_a_mark_of_the_clock_is_written_now_and_with_each_record(rig: Rig) -> None:
    assert rig.store.mark() is None
    rig.store.put(SLOT, READY, None)
    assert rig.store.mark() is None
    rig.store.mark_with(Ticking())
    assert rig.store.mark() == Mark(1.0, 0.0, 0.0, "boot")
    rig.store.put(SLOT, Record(), None)
    rig.store.put_mark()

    assert rig.again().mark() == Mark(3.0, 0.0, 0.0, "boot")


def test_a_new_store_has_no_fault(rig: Rig) -> None:
    assert rig.store.problem is None
    assert rig.store.damage == []
