"""What was shown once is asked for by its id before it is taken for gone."""

from dataclasses import dataclass, field

import pytest

from ollama_proxy.backends.base.sightings import APART_S, Absences, Sightings
from ollama_proxy.base.errors import NotFoundError, TransientError
from ollama_proxy.core.lifecycle.record import LaunchId


@dataclass(frozen=True)
class Thing:
    id: str
    is_over: bool = False


@dataclass
class Cloud:
    """What there is; ``is_down``: nothing can be asked for."""

    things: dict[str, Thing] = field(default_factory=dict)
    saved: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_down: bool = False

    async def ask(self, _place: str, thing_id: str) -> Thing:
        self.asked.append(thing_id)
        if self.is_down:
            raise TransientError("no answer")
        if thing_id not in self.things:
            raise NotFoundError(thing_id)
        return self.things[thing_id]

    def save(self, known: dict[str, str]) -> None:
        self.saved = known

    def sightings(self) -> Sightings[Thing]:
        return Sightings(
            self.saved,
            ask=self.ask,
            is_over=lambda one: one.is_over,
            save=self.save,
        )


async def test_what_an_empty_list_lacks_is_asked_for_by_its_id() -> None:
    cloud = Cloud({"a": Thing("a")})
    sightings = cloud.sightings()
    sightings.note("GRA", Thing("a"))

    assert await sightings.complete("GRA", []) == [Thing("a")]


async def test_what_is_in_the_list_is_not_asked_for() -> None:
    cloud = Cloud({"a": Thing("a")})
    sightings = cloud.sightings()
    for _ in range(2):
        await sightings.complete("GRA", [Thing("a")])

    assert cloud.asked == []


async def test_the_next_process_knows_what_was_shown_to_this_one() -> None:
    cloud = Cloud({"a": Thing("a")})
    await cloud.sightings().complete("GRA", [Thing("a")])

    assert await cloud.sightings().complete("GRA", []) == [Thing("a")]


async def test_the_clouds_own_word_ends_it() -> None:
    cloud = Cloud()
    cloud.saved = {"a": "GRA"}
    sightings = cloud.sightings()

    assert await sightings.complete("GRA", []) == []
    assert cloud.saved == {}
    assert (await sightings.complete("GRA", []), cloud.asked) == ([], ["a"])


async def test_what_is_over_is_not_asked_for_again() -> None:
    cloud = Cloud({"a": Thing("a", is_over=True)})
    cloud.saved = {"a": "GRA"}
    sightings = cloud.sightings()
    for _ in range(2):
        assert await sightings.complete("GRA", []) == []

    assert cloud.asked == ["a"]


async def test_what_can_not_be_asked_for_may_be_there() -> None:
    cloud = Cloud(is_down=True)
    cloud.saved = {"a": "GRA"}
    sightings = cloud.sightings()
    with pytest.raises(TransientError):
        await sightings.complete("GRA", [])

    assert cloud.saved == {"a": "GRA"}


async def test_what_the_notes_of_a_launch_knew_is_saved_before_they_go() -> None:
    """It was known at the beginning, and so nothing about it changes."""
    cloud, saved = Cloud({"a": Thing("a")}), dict[str, str]()
    sightings = Sightings[Thing](
        {"a": "GRA"},  # of a launch, and not yet saved for longer
        ask=cloud.ask,
        is_over=lambda one: one.is_over,
        save=saved.update,
    )
    sightings.note("GRA", Thing("a"))

    assert saved == {"a": "GRA"}


async def test_another_places_things_are_not_asked_for_here() -> None:
    cloud = Cloud()
    cloud.saved = {"a": "GRA"}

    assert await cloud.sightings().complete("BHS", []) == []
    assert cloud.asked == []


def test_two_looks_in_a_moment_are_no_proof_of_absence() -> None:
    absences, launch_id = Absences(), LaunchId("l1")

    assert not absences.is_certain(launch_id, 1000.0, sent_at=0.0)
    assert not absences.is_certain(launch_id, 1001.0, sent_at=0.0)
    assert absences.is_certain(launch_id, 1000.0 + APART_S, sent_at=0.0)


def test_a_look_right_after_the_call_is_no_proof_of_absence() -> None:
    absences, launch_id = Absences(), LaunchId("l1")

    assert not absences.is_certain(launch_id, 1001.0, sent_at=1000.0)
    assert not absences.is_certain(launch_id, 1002.0 + APART_S, sent_at=1000.0)


def test_a_launch_that_was_seen_begins_anew() -> None:
    absences, launch_id = Absences(), LaunchId("l1")
    absences.is_certain(launch_id, 1000.0, sent_at=0.0)
    absences.end(launch_id)

    assert not absences.is_certain(launch_id, 1000.0 + APART_S, sent_at=0.0)
