"""What every store does with usage: the port, held to its words."""

from contextlib import closing
from itertools import combinations
from pathlib import Path

import msgspec
import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.access.usage import BY_ALL, UsageField, UsageRow, sum_rows
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.store.rig import Rig

ONE, TWO = KeyId("0123abcd"), KeyId("89abcdef")
ROW = UsageRow("2026-11-29", ONE, "laptop", "m:latest", 1, 20, 30, 5, 1.5, 2)
ROWS = [
    ROW,
    UsageRow("2026-11-29", ONE, "laptop", "n:latest", 2, 1, 1, 0, 0.25, 0),
    UsageRow("2026-11-29", TWO, "phone", "m:latest", 3, 1, 1, 0, 0.5, 0),
    UsageRow("2026-11-30", ONE, "desk", "m:latest", 4, 1, 1, 2, 1.0, 0),
    UsageRow("2026-12-01", TWO, "phone", "", 0, 0, 0, 0, 0.0, 7),
]


def test_a_new_store_has_no_usage(rig: Rig) -> None:
    assert rig.store.usage("", None, BY_ALL) == []
    assert rig.store.usage("", None, ()) == []


def test_rows_of_a_day_key_and_model_are_added_up_under_the_last_name(rig: Rig) -> None:
    rig.store.add_usage([ROW])
    rig.again().add_usage([msgspec.structs.replace(ROW, key_name="desk")])

    assert rig.again().usage("", None, BY_ALL) == [
        UsageRow("2026-11-29", ONE, "desk", "m:latest", 2, 40, 60, 10, 3.0, 4)
    ]


@pytest.mark.parametrize(
    "by", [by for size in range(4) for by in combinations(UsageField, size)]
)
def test_both_stores_group_as_the_sums_do(rig: Rig, by: tuple[UsageField, ...]) -> None:
    rig.store.add_usage(ROWS)

    assert rig.store.usage("", None, by) == sum_rows(ROWS, by)


def test_the_last_name_of_a_key_stands_for_it(rig: Rig) -> None:
    rig.store.add_usage(ROWS)
    names = [row.key_name for row in rig.store.usage("", None, {UsageField.KEY})]

    assert names == ["desk", "phone"]


def test_usage_is_told_of_one_key_and_since_a_day(rig: Rig) -> None:
    rig.store.add_usage(ROWS)

    assert rig.store.usage("2026-11-30", ONE, BY_ALL) == [ROWS[3]]
    assert rig.store.usage("2026-11-30", KeyId("nobody"), BY_ALL) == []


def test_old_days_and_the_oldest_rows_beyond_a_number_are_forgotten(rig: Rig) -> None:
    rig.store.add_usage(ROWS)
    rig.store.trim_usage("2026-11-29", 4)
    assert len(rig.store.usage("", None, BY_ALL)) == 4
    assert ROWS[3] in rig.store.usage("", None, BY_ALL)

    rig.store.trim_usage("2026-11-30", 4)
    assert rig.again().usage("", None, BY_ALL) == ROWS[3:]


def test_of_rows_that_cannot_be_written_none_is(tmp_path: Path) -> None:
    without_model = msgspec.structs.replace(ROW, model=None)
    with closing(SqliteStore(tmp_path)) as store:
        with pytest.raises(StoreError):
            store.add_usage([ROW, without_model])

        assert store.usage("", None, BY_ALL) == []
