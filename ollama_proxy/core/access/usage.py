"""Count what a key used: one row for each day, key and model. Values only."""

from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from typing import Final

import msgspec

from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.ollama.model_names import full_model_name

NO_MODEL: Final = ""
"""Stands for the model of a request whose model is not known, or does not exist."""

OTHER_MODELS: Final = "other"
"""Stands for the models of a key beyond `MODELS_OF_KEY`: real names have a tag."""

MODELS_OF_KEY: Final = 50
"""How many models of a key have rows of their own each day."""

LONGEST_MODEL: Final = 128
"""Characters of a model's name that are kept."""

DAYS_KEPT: Final = 400
"""How many days usage is kept: a year, and time to look at it."""

ROWS_KEPT: Final = 50_000
"""How many rows are kept at most, some 8 MB, the newest: they add up in 0.1 s."""

_LONGEST_LOOK = 1024


class UsageField(StrEnum):
    """Names what usage is grouped by."""

    DAY = "day"
    KEY = "key"
    MODEL = "model"


BY_ALL: Final = frozenset(UsageField)
"""Groups by everything: the rows as they are kept."""


class UsageRow(msgspec.Struct, frozen=True):
    """Holds what one key used of one model on one day of UTC.

    - ``day``: as 2026-11-29. ``key_name``: the last name of the key.
    - ``requests``: sent to an instance. ``refused``: with 403 or 429, for the key.
    - ``prompt_tokens``, ``output_tokens``: all of them, of which ``estimated`` are
      estimates. ``seconds``: of instances that worked on the requests.

    A field that rows are not grouped by is "".
    """

    day: str = ""
    key_id: KeyId = KeyId("")
    key_name: str = ""
    model: str = ""
    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    estimated: int = 0
    seconds: float = 0.0
    refused: int = 0

    @property
    def identity(self) -> tuple[str, str, str]:
        """Return what tells the row from all others."""
        return self.day, self.key_id, self.model

    def plus(self, other: "UsageRow") -> "UsageRow":
        """Return the sum of two rows, under the name of the second."""
        return UsageRow(
            self.day,
            self.key_id,
            other.key_name,
            self.model,
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.output_tokens + other.output_tokens,
            self.estimated + other.estimated,
            self.seconds + other.seconds,
            self.refused + other.refused,
        )

    def grouped(self, by: Collection[UsageField]) -> "UsageRow":
        """Return the row without the fields that rows are not grouped by."""
        has_key = UsageField.KEY in by
        return msgspec.structs.replace(
            self,
            day=self.day if UsageField.DAY in by else "",
            key_id=self.key_id if has_key else KeyId(""),
            key_name=self.key_name if has_key else "",
            model=self.model if UsageField.MODEL in by else "",
        )


def rows_since(
    rows: Iterable[UsageRow], since: str, key_id: KeyId | None
) -> Iterator[UsageRow]:
    """Yield the rows since a day, of one key or of all."""
    return (r for r in rows if r.day >= since and key_id in {None, r.key_id})


def sum_rows(rows: Iterable[UsageRow], by: Collection[UsageField]) -> list[UsageRow]:
    """Return the sums of rows, grouped; by day, then key, then model.

    Of two names of a key that of the later day counts.
    """
    sums: dict[tuple[str, str, str], UsageRow] = {}
    for row in sorted(rows, key=lambda row: row.day):
        group = row.grouped(by)
        before = sums.get(group.identity)
        sums[group.identity] = group if before is None else before.plus(group)
    return [sums[identity] for identity in sorted(sums)]


def row_model(name: str) -> str:
    """Return the model of a row: as Ollama resolves it, cut, and safe to print."""
    if not name:
        return NO_MODEL
    full = full_model_name(name[:_LONGEST_LOOK])[:LONGEST_MODEL]
    if full.isprintable():
        return full
    return "".join(one if one.isprintable() else "?" for one in full)
