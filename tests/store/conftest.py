"""Every kind of store, for the contracts that each has to keep."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from ollama_proxy.store.memory import MemoryStore
from ollama_proxy.store.ports import Store
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.store.rig import LINES, Rig


@pytest.fixture(params=["sqlite", "memory"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    in_memory = MemoryStore(journal_lines=LINES)
    opened: dict[str, Callable[[], Store]] = {
        "sqlite": partial(SqliteStore, tmp_path, journal_lines=LINES),
        "memory": lambda: in_memory,
    }
    rig = Rig(opened[request.param])
    yield rig
    rig.store.close()
