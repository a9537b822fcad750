"""In which order placements are tried, and which refusal is raised."""

import pytest

from ollama_proxy.backends.base.placement import Placement, Room
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    CredentialsError,
    SpecError,
)
from tests.virtual_time import SetClock

A, B, C = Placement("a"), Placement("b", "big"), Placement("b", "small")


def test_what_was_full_lately_comes_last_for_ten_minutes() -> None:
    clock = SetClock()
    room = Room(clock)
    room.note_full(A)

    assert room.in_order([A, B, C]) == [B, C, A]
    clock.moment += 601.0
    assert room.in_order([A, B, C]) == [A, B, C]


def test_another_type_in_a_location_that_was_full_is_not_full() -> None:
    room = Room(SetClock())
    room.note_full(B)

    assert (room.is_full(B), room.is_full(C)) == (True, False)


async def test_the_first_placement_that_takes_it_is_the_only_one_that_makes_one() -> (
    None
):
    room = Room(SetClock())
    tried: list[Placement] = []

    async def make(placement: Placement) -> None:
        tried.append(placement)
        if placement is A:
            raise CapacityError("full")

    await room.first_that_takes([A, B, C], make)

    assert tried == [A, B]
    assert room.in_order([A, B, C]) == [B, C, A]


@pytest.mark.parametrize(
    ("refusals", "told"),
    [
        ([SpecError("no such type"), CapacityError("full")], CapacityError),
        ([SpecError("no such type"), SpecError("no such type")], SpecError),
        ([CapacityError("full"), CredentialsError("no right")], CredentialsError),
    ],
)
async def test_want_of_room_is_told_rather_than_what_another_place_refuses(
    refusals: list[BackendError], told: type[BackendError]
) -> None:
    async def make(_: Placement) -> None:
        raise refusals.pop(0)

    with pytest.raises(told):
        await Room(SetClock()).first_that_takes([A, B], make)
