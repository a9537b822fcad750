"""The provider: boxes in yards, each on until it is switched off, and faults."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    NotFoundError,
    OutcomeUnknownError,
)


@dataclass(slots=True)
class Provider:
    """Boxes by id, each with its yard, and the provider's faults.

    - ``full``: yards without room.
    - ``loses``: how many answers to a create call get lost after it made a box.
    - ``hides``: ids that lists lack; ``denies``: ids that look-ups do not find.
    - ``silent``: yards that fail.
    """

    guard_url: str = ""
    boxes: dict[str, dict[str, object]] = field(default_factory=dict)
    yards: dict[str, str] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    hides: set[str] = field(default_factory=set)
    denies: set[str] = field(default_factory=set)
    loses: int = 0
    created: int = 0
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def boxes_of(self, yard: str) -> list[dict[str, object]]:
        if yard in self.silent:
            raise BackendError(f"{yard} does not answer")
        shown = self.boxes.keys() - self.hides
        return [self.boxes[one] for one in sorted(shown) if self.yards[one] == yard]

    def box(self, box_id: str) -> dict[str, object]:
        if box_id in self.denies or box_id not in self.boxes:
            raise NotFoundError(f"there is no box {box_id}")
        return self.boxes[box_id]

    def create(self, yard: str, notes: dict[str, str]) -> str:
        if yard in self.full:
            raise CapacityError(f"{yard} is full")
        number = next(self.numbers)
        box_id = f"b{number}"
        at = f"2026-01-01T00:00:{number:02}Z"
        self.boxes[box_id] = {"id": box_id, "power": "on", "at": at, "notes": notes}
        self.yards[box_id] = yard
        self.created += 1
        if self.loses:
            self.loses -= 1
            raise OutcomeUnknownError("the answer was lost")
        return box_id

    def switch(self, box_id: str, power: str) -> None:
        self.box(box_id)["power"] = power

    def scrap(self, box_id: str) -> None:
        self.box(box_id)
        del self.boxes[box_id]

    def annotate(self, box_id: str, notes: dict[str, str]) -> None:
        box = self.box(box_id)
        assert isinstance(box["notes"], dict)
        box["notes"] = {**box["notes"], **notes}

    @property
    def paid(self) -> list[str]:
        return [one for one, box in self.boxes.items() if box["power"] == "on"]
