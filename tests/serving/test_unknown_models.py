"""A model that is not there starts no machine only to say so."""

import pytest

from ollama_proxy.core.ollama.model_fate import Fate, WakeRule
from ollama_proxy.serving.lesson_book import LessonBook
from ollama_proxy.serving.unknown_models import UnknownModels
from tests.fakes.store import FaultyPlace
from tests.virtual_time import SetClock


class Models:
    """A list of models that somebody may change."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)

    @property
    def list_id(self) -> str | None:
        return " ".join(self.names) or None

    def knows(self, full_name: str) -> bool:
        return full_name in self.names


class Instances:
    """What a wake would do, as the test has it."""

    is_ready = False
    would_launch = True


class Rig:
    """`UnknownModels` with everything around it in the test's hands."""

    def __init__(self) -> None:
        self.models, self.instances = Models("there:latest"), Instances()
        self.clock, self.store = SetClock(), FaultyPlace()
        self.fetched: list[str] = []
        self.book = LessonBook(self.store, self.clock)
        self.open()

    def open(self) -> None:
        """Begin as a new process does, after the end of the last."""
        self.book.close()
        self.book = LessonBook(self.store, self.clock)
        self.unknown = UnknownModels(
            WakeRule.AUTO,
            listing=self.models,
            launches=self.instances,
            book=self.book,
            clock=self.clock,
            starts_empty=False,
            also_known=lambda: self.fetched,
        )

    def refresh(self) -> None:
        """Have an instance asked for its list, and tell it."""
        self.unknown.list_asked()()

    def admit(self, name: str) -> Fate:
        """Do as is done with a request: it is judged, and noted if it wakes."""
        fate = self.unknown.judge(name)
        if fate is Fate.WAKE:
            self.unknown.note_wake(name)
        return fate


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("name", ["THERE", "there", "registry.ollama.ai/library/there"])
def test_names_compare_as_the_store_resolves_them(rig: Rig, name: str) -> None:
    assert rig.admit(name) is Fate.PASS


def test_a_name_wakes_once(rig: Rig) -> None:
    assert rig.admit("nope") is Fate.WAKE
    rig.instances.would_launch = False
    assert rig.admit("nope") is Fate.JOIN
    rig.refresh()
    rig.instances.would_launch = True
    assert rig.admit("Nope:latest") is Fate.ABSENT
    rig.open()

    assert rig.admit("nope") is Fate.ABSENT


def test_a_launch_that_came_to_nothing_is_no_answer(rig: Rig) -> None:
    assert rig.admit("nope") is Fate.WAKE
    assert rig.admit("nope") is Fate.WAKE


def test_what_an_instance_said_holds_until_the_list_changes(rig: Rig) -> None:
    rig.unknown.heard("nope", is_there=False)
    assert rig.unknown.judge("nope") is Fate.ABSENT
    rig.models.names.append("other:latest")

    assert rig.unknown.judge("nope") is Fate.WAKE


def test_a_list_that_changed_by_a_launch_still_lacks_what_it_was_woken_for(
    rig: Rig,
) -> None:
    rig.admit("nope")
    rig.models.names.append("other:latest")
    rig.refresh()

    assert rig.unknown.judge("nope") is Fate.ABSENT


def test_a_list_asked_for_before_the_wake_says_nothing_of_its_name(rig: Rig) -> None:
    rig.admit("before")
    tell = rig.unknown.list_asked()
    rig.admit("meanwhile")
    tell()
    rig.instances.would_launch = False

    assert rig.unknown.judge("before") is Fate.ABSENT
    assert rig.unknown.judge("meanwhile") is Fate.JOIN
    rig.refresh()
    assert rig.unknown.judge("meanwhile") is Fate.ABSENT


def test_three_wakes_an_hour_are_for_all_names_together(rig: Rig) -> None:
    fates = []
    for number in range(5):
        fates.append(rig.admit(f"nope{number}"))
        rig.refresh()
        rig.clock.moment += 60.0

    assert fates == [Fate.WAKE] * 3 + [Fate.LATER] * 2
    assert rig.unknown.next_look_s() == 3600.0 - 5 * 60.0
    rig.open()
    assert rig.admit("nope9") is Fate.LATER
    rig.clock.moment += 3600.0 - 5 * 60.0
    assert rig.unknown.next_look_s() == 0.0
    assert rig.admit("nope9") is Fate.WAKE


def test_a_clock_that_was_set_back_leaves_nobody_asleep(rig: Rig) -> None:
    for number in range(3):
        rig.admit(f"nope{number}")
    rig.clock.moment -= 86400.0

    assert rig.admit("nope9") is Fate.WAKE


def test_a_name_that_was_served_though_no_list_has_it_wakes_as_any(rig: Rig) -> None:
    rig.admit("alias")
    rig.refresh()
    awaited = [rig.unknown.awaits]
    rig.unknown.heard("alias", is_there=True)
    awaited.append(rig.unknown.awaits)
    assert awaited == [True, False]
    rig.open()
    assert rig.admit("alias") is Fate.PASS
    rig.unknown.heard("alias", is_there=False)

    assert rig.admit("alias") is Fate.ABSENT


def test_nobody_is_awaited_for_ever(rig: Rig) -> None:
    rig.admit("nope")
    rig.clock.moment += 599.0
    awaited = [rig.unknown.awaits]
    rig.clock.moment += 2.0
    awaited.append(rig.unknown.awaits)

    assert awaited == [True, False]


def test_what_was_heard_before_the_first_list_holds_after_it(rig: Rig) -> None:
    rig.models.names.clear()
    rig.unknown.heard("nope", is_there=False)
    rig.models.names.append("there:latest")
    rig.refresh()

    assert rig.unknown.judge("nope") is Fate.ABSENT


def test_what_is_being_fetched_is_known(rig: Rig) -> None:
    rig.unknown.heard("coming", is_there=False)
    rig.fetched.append("COMING")

    assert rig.unknown.judge("coming") is Fate.PASS


@pytest.mark.parametrize("name", ["", "nope:cloud", "nope:120b-cloud"])
def test_no_name_and_cloud_models_are_judged_elsewhere(rig: Rig, name: str) -> None:
    assert rig.admit(name) is Fate.PASS


def test_what_clients_ask_for_fills_nothing(rig: Rig) -> None:
    for number in range(1000):
        rig.unknown.heard(f"{number}" + "x" * 400, is_there=False)
    rig.unknown.heard("y" * 10_000, is_there=False)
    writes = rig.store.writes
    rig.book.close()
    lessons = rig.store.lessons()

    assert writes == 1
    assert lessons.absent[-1].startswith("999")
    assert len(lessons.absent) == 64
    assert max(map(len, lessons.absent)) < 500
    assert rig.unknown.judge("z" * 10_000) is Fate.ABSENT
