"""Choose among nodes by the labels that they tell of themselves.

Written ``labels = { gpu = "a100", site = "home*" }``, or as the text ``gpu=a100,
site=home*``: a node matches if it has every one of these. A value is a glob. Every node
has the labels ``node_id`` and ``hostname``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

MOST_LABELS: Final = 32
LONGEST_LABEL: Final = 128

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,62})")
_BOUND = "up to 63 letters, digits, - . _ and /"


@dataclass(frozen=True, slots=True)
class Labels:
    """Holds the labels that a node needs, by name, each with the glob of its value."""

    wanted: tuple[tuple[str, str], ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a node with these labels is chosen."""
        return all(
            name in labels and fnmatchcase(labels[name], glob)
            for name, glob in self.wanted
        )

    def __str__(self) -> str:
        return ", ".join(f"{name}={glob}" for name, glob in self.wanted)


def parse_labels(given: object) -> Labels:
    """Return the labels of a table, or of a text; raises `ValueError`."""
    if isinstance(given, Labels):
        return given
    if isinstance(given, str):
        parts = [part.partition("=") for part in given.split(",") if part.strip()]
        if without := [name for name, equals, _ in parts if not equals]:
            raise ValueError(f"{without[0].strip()!r} has no value; write NAME=VALUE")
        given = {name.strip(): value.strip() for name, _, value in parts}
    if not isinstance(given, Mapping):
        raise ValueError('these are no labels; write { gpu = "a100" }')  # noqa: TRY004 - pydantic shows it
    return Labels(tuple(sorted(check_labels(given).items())))


def check_labels(given: Mapping[Any, object]) -> dict[str, str]:
    """Return labels as texts; raises `ValueError` for what is no label."""
    if len(given) > MOST_LABELS:
        raise ValueError(f"{len(given)} labels are too many; write up to {MOST_LABELS}")
    checked: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"{str(name)[:LONGEST_LABEL]!r} is no name of a label; write {_BOUND}"
            )
        text = str(value).lower() if isinstance(value, bool) else value
        text = str(text) if isinstance(text, int | float) else text
        if not isinstance(text, str) or not (
            len(text) <= LONGEST_LABEL and text.isprintable()
        ):
            raise ValueError(
                f"the label {name!r} has no text on one line of up to {LONGEST_LABEL}"
                " characters as its value"
            )
        checked[name] = text
    return checked
