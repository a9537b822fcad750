"""What every store does with the commitments of keys: the port, held to its words."""

from pathlib import Path

import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.store.ports import PERIODS
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.store.rig import Rig

CI, LAPTOP = KeyId("0a1b2c3d"), KeyId("ffffffff")


def test_a_key_has_no_commitments_at_first(rig: Rig) -> None:
    assert rig.store.commitments(CI) == {}


def test_commitments_are_read_back_by_kind_and_period(rig: Rig) -> None:
    rig.store.put_commitment(CI, "tokens", "2026-11-29", 100)
    rig.store.put_commitment(CI, "money day", "2026-11-29", 10**15)
    rig.store.put_commitment(LAPTOP, "tokens", "2026-11-29", 1)

    assert rig.again().commitments(CI) == {
        ("tokens", "2026-11-29"): 100,
        ("money day", "2026-11-29"): 10**15,
    }


def test_the_last_commitment_of_a_period_counts(rig: Rig) -> None:
    for amount in (100, 50):
        rig.store.put_commitment(CI, "tokens", "2026-11-29", amount)

    assert rig.again().commitments(CI) == {("tokens", "2026-11-29"): 50}


def test_of_each_kind_the_periods_are_kept_that_were_written_last(rig: Rig) -> None:
    rig.store.put_commitment(CI, "money month", "2026-11", 7)
    rig.store.put_commitment(CI, "tokens", "2026-11-01", 1)
    for day in range(2, 12):
        rig.store.put_commitment(CI, "tokens", f"2026-11-{day:02}", day)
        rig.store.put_commitment(CI, "tokens", "2026-11-01", day)
    found = rig.again().commitments(CI)

    assert len(found) == PERIODS + 1
    assert found["money month", "2026-11"] == 7
    assert found["tokens", "2026-11-01"] == 11
    assert found["tokens", "2026-11-11"] == 11


def test_a_key_that_is_removed_leaves_no_commitments(rig: Rig) -> None:
    rig.store.put_commitment(CI, "tokens", "2026-11-29", 1)
    rig.store.put_commitment(LAPTOP, "tokens", "2026-11-29", 2)
    rig.store.drop_key(CI, AuditLine(1.0, "root", "127.0.0.1", "key rm", "ci", ""))

    assert rig.again().commitments(CI) == {}
    assert rig.store.commitments(LAPTOP) == {("tokens", "2026-11-29"): 2}


def test_a_commitment_that_is_not_written_is_an_error(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.close()

    with pytest.raises(StoreError, match="can't be written"):
        store.put_commitment(CI, "tokens", "2026-11-29", 1)
    with pytest.raises(StoreError, match="can't be read"):
        store.commitments(CI)
