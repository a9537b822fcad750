"""How much longer a launch takes, from the stages of those before it."""

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.lifecycle.stage_estimates import StageEstimates
from ollama_proxy.store.sqlite.store import SqliteStore

BOOT = {"creating": 20.0, "booting": 30.0, "driver": 100.0, "loading": 10.0}
WAKE = {"creating": 5.0, "booting": 15.0, "loading": 10.0}


class Launches:
    """A history in memory."""

    def __init__(self, *launches: dict[str, float]) -> None:
        self.kept = list(launches)

    def add(self, _offer: str, stages: Mapping[str, float]) -> None:
        self.kept.append(dict(stages))

    def launches(self, _offer: str) -> list[dict[str, float]]:
        return list(self.kept)


def test_it_is_the_rest_of_this_stage_and_all_that_follow() -> None:
    estimates = StageEstimates(Launches(BOOT))

    assert estimates.remaining_s("a", "creating", 0.0) == 160.0
    assert estimates.remaining_s("a", "driver", 40.0) == 70.0
    assert estimates.remaining_s("a", "loading", 4.0) == 6.0


def test_a_stage_that_takes_too_long_does_not_eat_up_those_to_come() -> None:
    """By the whole launch's length it would be one second, for minutes."""
    estimates = StageEstimates(Launches(BOOT))

    assert estimates.remaining_s("a", "driver", 500.0) == 10.0
    assert estimates.remaining_s("a", "loading", 500.0) == 1.0


def test_a_stage_that_none_had_says_nothing() -> None:
    assert StageEstimates(Launches(WAKE)).remaining_s("a", "driver", 1.0) is None
    assert StageEstimates(Launches()).remaining_s("a", "creating", 1.0) is None


def test_only_the_launches_that_had_the_stage_count() -> None:
    """A stopped machine that is started installs nothing."""
    estimates = StageEstimates(Launches(WAKE, WAKE, WAKE, BOOT))

    assert estimates.remaining_s("a", "driver", 0.0) == 110.0
    assert estimates.remaining_s("a", "booting", 0.0) == 25.0


def test_what_was_measured_outlives_the_process(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStore(tmp_path)) as store:
        StageEstimates(store.stages).add("a", BOOT)
    with contextlib.closing(SqliteStore(tmp_path)) as store:
        estimates = StageEstimates(store.stages)

        assert estimates.remaining_s("a", "driver", 0.0) == 110.0
        assert estimates.remaining_s("b", "driver", 0.0) is None


def test_so_many_are_kept_and_no_more(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStore(tmp_path)) as store:
        estimates = StageEstimates(store.stages)
        for _ in range(30):
            estimates.add("a", BOOT)
            estimates.add("b", WAKE)

        assert len(store.stages.launches("a")) == 20
        assert len(store.stages.launches("b")) == 20


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"driver": "x"}', b'{"driver": -1}', 7])
def test_a_row_that_can_not_be_read_is_left_out(tmp_path: Path, raw: object) -> None:
    with contextlib.closing(SqliteStore(tmp_path)) as store:
        store.stages.add("a", BOOT)
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite3")) as db, db:
        db.execute("INSERT INTO launch_stages VALUES (NULL, 'a', ?)", (raw,))
    with contextlib.closing(SqliteStore(tmp_path)) as store:
        assert store.stages.launches("a") == [BOOT]


@given(
    st.lists(
        st.dictionaries(st.sampled_from(list(BOOT)), st.floats(0, 1e5), min_size=1),
        max_size=5,
    ),
    st.floats(0, 1e6),
)
def test_it_is_never_less_than_a_second(
    launches: list[dict[str, float]], running_s: float
) -> None:
    estimates = StageEstimates(Launches(*launches))
    for stage in BOOT:
        left_s = estimates.remaining_s("a", stage, running_s)
        assert left_s is None or left_s >= 1.0
