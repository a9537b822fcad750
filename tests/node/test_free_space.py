"""How much room for models there is, where that can be known."""

import asyncio
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from ollama_proxy.node import free_space
from ollama_proxy.node.free_space import FreeSpace


async def test_the_first_folder_that_is_there_is_measured(tmp_path: Path) -> None:
    measured = await FreeSpace([tmp_path / "none", tmp_path]).measure()

    assert measured is not None
    assert abs(measured - shutil.disk_usage(tmp_path).free) < 1 << 30


@pytest.mark.parametrize("names", [[], ["none"], ["\0"], ["file/below"]])
async def test_without_a_folder_the_room_is_not_known(
    tmp_path: Path, names: list[str]
) -> None:
    (tmp_path / "file").touch()

    assert await FreeSpace([tmp_path / name for name in names]).measure() is None


async def test_a_file_system_that_hangs_holds_up_one_look_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, looks = threading.Event(), []

    def hang(folders: Sequence[Path]) -> int:
        looks.append(folders)
        go_on.wait(20)
        return 7

    monkeypatch.setattr(free_space, "_free", hang)
    space = FreeSpace([tmp_path], limit_s=0.05)
    try:
        first, second = await space.measure(), await space.measure()
    finally:
        go_on.set()
    async with asyncio.timeout(20):
        while (last := await space.measure()) is None:
            pass

    assert (first, second, last) == (None, None, 7)
    assert len(looks) == 1


async def test_two_that_ask_at_a_time_get_the_same_look(tmp_path: Path) -> None:
    space = FreeSpace([tmp_path])

    first, second = await asyncio.gather(space.measure(), space.measure())

    assert first == second
    assert first is not None
